"""The server: real sockets, real memory, several guests; one thread serves, the test plays the guests."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest

from pagetide.host.daemon import reception
from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES
from pagetide.host.memory.ledger import Ledger
from pagetide.virtio.balloon import STAT, Feature, Queue, Stat
from pagetide.virtio.vhost_user.messages import Request
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest, wait_readable
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, SIZE
from tests.host.running_server import Running, connect, two_guests
from tests.host.server_at_times import ServerAtTimes

PLAIN = int(Feature.VERSION_1 | Feature.REPORTING)


@pytest.mark.parametrize("features", [int(FEATURES), PLAIN], ids=["full", "plain"])
def test_guests_get_their_memory_discarded(running: Running, tmp_path: Path, features: int) -> None:
    """One block, then 32 in one element: gone when the call comes, the neighbours intact, twice over."""
    with ServedGuest(connect(tmp_path), features=features) as guest:
        for _ in range(2):
            gone: set[int] = set()
            for blocks in ([(RING_PAGES + 3, 4)], [(RING_PAGES + 16 + 16 * n, 8) for n in range(32)]):
                assert [length for _, length in guest.report(blocks)] == [0]
                gone |= {page for start, pages in blocks for page in range(start, start + pages)}
                assert guest.ring.resident_pages() == set(range(guest.ring.pages)) - gone
            assert all(guest.ring.intact(page) for page in set(range(RING_PAGES, guest.ring.pages)) - gone)
            guest.ring.refill()
        (attached,) = running.server.guests
        snapshot = attached.ledger.snapshot()
        assert snapshot["verified_bytes"] == snapshot["reported_bytes"] == 2 * (4 + 32 * 8) * PAGE
        assert snapshot["reports"] == 4


@pytest.mark.usefixtures("hugetmpfs")
def test_guests_on_huge_pages_are_served(running: Running, tmp_path: Path) -> None:
    """2 MiB blocks of a guest on a huge tmpfs are gone when the call comes."""
    with ServedGuest(connect(tmp_path), pages=2048, backing="hugetmpfs") as guest:
        guest.report([(512, 512), (1536, 512)])
        assert guest.ring.resident_pages() == {*range(512), *range(1024, 1536)}


def test_guests_are_served_side_by_side(running: Running, tmp_path: Path) -> None:
    """Several guests' reports each reach their own memory and their own ledger."""
    guests = [ServedGuest(connect(tmp_path)) for _ in range(3)]
    for number, guest in enumerate(guests):
        for _ in range(number + 1):
            guest.submit([(RING_PAGES + number, 1)])
    for number, guest in enumerate(guests):
        done = 0
        while done < number + 1:
            done += len(guest.wait_used())
        assert guest.ring.resident_pages() == set(range(guest.ring.pages)) - {RING_PAGES + number}
    assert sorted(attached.ledger.snapshot()["reports"] for attached in running.server.guests) == [1, 2, 3]
    for guest in guests:
        guest.close()
    running.await_gone(3)
    assert {reason for _, reason in running.gone} == {"disconnected"}


def test_a_backlog_larger_than_a_turn_is_served_to_its_end(running: Running, tmp_path: Path) -> None:
    """A full ring of elements takes several turns, after a single kick."""
    with ServedGuest(connect(tmp_path)) as guest:
        for _ in range(SIZE):
            guest.ring.add([(RING_PAGES, 1)])
        assert guest.ring.driver.publish()
        os.eventfd_write(guest.kick_fd, 1)
        done = 0
        while done < SIZE:
            done += len(guest.wait_used())


def test_guests_leave_nothing_behind(running: Running, tmp_path: Path) -> None:
    """After fifty guests have come and gone, half of them amid a report, no mapping or descriptor is left."""

    def held() -> tuple[set[str], int]:
        maps = Path("/proc/self/maps").read_text()
        return {fd.name for fd in Path("/proc/self/fd").iterdir()}, maps.count("memfd:pagetide-guest")

    before = held()
    for number in range(50):
        with ServedGuest(connect(tmp_path), pages=32) as guest:
            if number % 2:
                guest.report([(RING_PAGES, 4)])
            else:
                guest.submit([(RING_PAGES, 4)])
        running.await_gone(number + 1)
    assert running.server.guests == ()
    assert held() == before


def test_an_adopted_socket_is_served_into_the_given_ledger(tmp_path: Path) -> None:
    """`pagetide run` hands over one end of a socket pair and a ledger in shared memory."""
    ours, theirs = socket.socketpair()
    ledger, running = Ledger(), Running()
    attached = running.server.adopt(theirs, ledger=ledger, name="the guest")
    assert (attached.name, running.server.guests) == ("the guest", (attached,))
    running.start()
    with ServedGuest(ours) as guest:
        guest.report([(RING_PAGES, 2)])
        assert ledger.snapshot()["verified_bytes"] == 2 * PAGE
    running.await_gone()
    running.stop()


def test_closing_the_server_closes_its_guests_and_its_socket(tmp_path: Path) -> None:
    """Guests see their connection end, and nothing is left at the path."""
    running = Running()
    running.server.listen(tmp_path / "host")
    running.start()
    with ServedGuest(connect(tmp_path)) as guest:
        running.stop()
        wait_readable(guest.channel.fileno())
    assert list(tmp_path.iterdir()) == []


def test_only_the_user_may_connect(running: Running, tmp_path: Path) -> None:
    """The socket's mode is 0600."""
    assert stat.S_IMODE((tmp_path / "host").stat().st_mode) == 0o600


def test_a_dead_servers_socket_is_replaced_and_a_living_ones_not(tmp_path: Path) -> None:
    """A stale socket is removed; a socket that somebody listens on, and a file, make listening fail and stay."""
    path = tmp_path / "host"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
        dead.listen()
    with Server() as server:
        server.listen(path)
        with Server() as second, pytest.raises(OSError, match="another process listens there"):
            second.listen(path)
        assert path.is_socket()
        (tmp_path / "file").write_text("x")
        with pytest.raises(OSError, match="there is something that is no socket"):
            server.listen(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "x"
        # Somebody else's socket in our place is not ours to remove.
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.bind(str(path))
            server.close()
            assert path.is_socket()


def test_guests_beyond_the_limit_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With as many guests as there may be the next one waits unanswered, and is taken when one goes."""
    monkeypatch.setattr(reception, "GUESTS_MAX", 2)
    with Server() as server:
        server.listen(tmp_path / "host")
        socks = [connect(tmp_path) for _ in range(3)]
        for _ in range(4):
            server.run_once(0)
        assert len(server.guests) == 2
        socks[0].close()
        for _ in range(4):
            server.run_once(0)
        assert len(server.guests) == 2
        socks[1].close()
        server.run_once(0)
        assert len(server.guests) == 1
        socks[2].close()


def test_the_last_places_are_kept_for_sockets_without_a_guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who connects to one socket again and again leaves a place for each other socket, and gets it with the socket."""
    monkeypatch.setattr(reception, "GUESTS_MAX", 4)
    with Server() as server, contextlib.ExitStack() as connected:
        server.sockets.listen_in(tmp_path)  # whose sockets come and go

        def come(name: str, count: int) -> list[str]:
            """Connect so often; who is attached once nothing happens any more."""
            for _ in range(count):
                sock = connected.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.connect(str(tmp_path / name))
            for _ in range(2 * count + 2):
                server.run_once(0)
            return sorted(guest.name for guest in server.guests)

        server.listen(tmp_path / "greedy")
        server.listen(tmp_path / "late")
        assert come("greedy", 5) == ["greedy", "greedy-2", "greedy-3"]
        server.listen(tmp_path / "later")
        assert come("late", 2) == ["greedy", "greedy-2", "greedy-3", "late"]
        server.sockets.remove("later")
        assert len(come("greedy", 1)) == 4
    with Server() as server, contextlib.ExitStack() as connected:
        server.sockets.listen_in(tmp_path)
        server.listen(tmp_path / "greedy")
        server.listen(tmp_path / "late")
        assert len(come("greedy", 5)) == 3
        server.sockets.remove("late")
        assert len(come("greedy", 1)) == 4


def test_one_guests_backlog_does_not_starve_another(tmp_path: Path) -> None:
    """Turns go round: beside a guest with a ring full of work, another's element waits for one turn at most."""
    running = Running()
    busy, light = two_guests(running)
    os.eventfd_write(running.stop_fd, 1)
    running.thread.join(TIMEOUT_S)
    for _ in range(SIZE):
        busy.ring.add([(RING_PAGES, 1)])
    busy.ring.driver.publish()
    os.eventfd_write(busy.kick_fd, 1)
    light.submit([(RING_PAGES, 1)])
    running.server.run_once(0)
    assert len(light.ring.driver.take_used()) == 1
    assert 0 < len(busy.ring.driver.take_used()) < SIZE
    busy.close()
    light.close()
    running.stop()


def test_the_loop_sleeps_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    """After a report is served nothing is ready: no descriptor keeps waking the loop."""
    running = Running()
    ours, theirs = socket.socketpair()
    running.server.adopt(theirs)
    running.start()
    guest = ServedGuest(ours)
    guest.report([(RING_PAGES, 1)])
    os.eventfd_write(running.stop_fd, 1)
    running.thread.join(TIMEOUT_S)
    running.server.run_once(0)
    assert running.server._events._epoll.poll(0) == []
    guest.close()
    running.stop()


def test_statistics_are_asked_for_on_the_wire() -> None:
    """A driver's statistics buffer comes back with a call when the server asks, and what it holds next is known."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as resources:
        at_times = ServerAtTimes()
        resources.callback(at_times.close)
        attached = at_times.server.adopt(theirs)
        guest = at_times.serving(lambda: resources.enter_context(ServedGuest(ours, queue=Queue.STATS)))
        gpas, lengths = np.array([GPA + RING_PAGES * PAGE], np.int64), np.array([STAT.size], np.int64)
        for value in (1, 2):
            guest.ring.ram.words.view(np.uint8)[RING_PAGES * PAGE :][: STAT.size] = list(STAT.pack(Stat.MEMFREE, value))
            assert guest.ring.driver.add_element(gpas, lengths, writable=False) is not None
            if guest.ring.driver.publish():
                os.eventfd_write(guest.kick_fd, 1)
            while attached.statistics.get("memfree") != value:
                at_times.serving(lambda: guest.channel.call(Request.GET_FEATURES))
            guest.ring.driver.arm_call()
            at_times.server.request_statistics()
            assert len(guest.wait_used()) == 1
