"""The server: real sockets, real memory, several guests; one thread serves, the test plays the guests."""

import contextlib
import fcntl
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagetide.host.daemon import reception
from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES
from pagetide.host.device.queues.turn import Turn
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.memory.ledger import Ledger
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_BYTES, STAT, Feature, Queue, Stat, Status
from pagetide.virtio.split_ring.driver import AVAIL_ADDRESS
from pagetide.virtio.split_ring.ring import RING_ENTRIES
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    MemoryRegion,
    VringAddress,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.transport import PeerGoneError
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest, wait_readable
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, SIZE, USER
from tests.host.server_at_times import ServerAtTimes

PLAIN = int(Feature.VERSION_1 | Feature.REPORTING)

_F_SEAL_FUTURE_WRITE = 0x10  # include/uapi/linux/fcntl.h; forbids what is not mapped yet, and punching


class Running:
    """A server and the thread that runs it."""

    def __init__(self) -> None:
        self.gone: list[tuple[AttachedGuest, str]] = []
        self.gone_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.server = Server(on_guest_gone=self._on_gone)
        self.thread = threading.Thread(target=self.server.run, args=(self.stop_fd,))

    def _on_gone(self, guest: AttachedGuest, reason: str) -> None:
        self.gone.append((guest, reason))
        os.eventfd_write(self.gone_fd, 1)

    def start(self) -> None:
        """Begin to serve."""
        self.thread.start()

    def stop(self) -> None:
        """Serve no more, and close the server."""
        os.eventfd_write(self.stop_fd, 1)
        if self.thread.is_alive():
            self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()
        self.server.close()
        os.close(self.stop_fd)
        os.close(self.gone_fd)

    def await_gone(self, count: int = 1) -> str:
        """Wait until that many guests have gone in all; why the last one went."""
        while len(self.gone) < count:
            wait_readable(self.gone_fd)
            os.eventfd_read(self.gone_fd)
        return self.gone[-1][1]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A server that listens at tmp_path / "host" in a thread."""
    running = Running()
    running.server.listen(tmp_path / "host")
    running.start()
    yield running
    running.stop()


def connect(tmp_path: Path) -> socket.socket:
    """A connection to the server."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(tmp_path / "host"))
    return sock


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


def test_a_polling_driver_without_call_descriptor_is_served(running: Running, tmp_path: Path) -> None:
    """No call descriptor is legal: the used ring is all that such a driver looks at."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index | NO_FD))
        guest.submit([(RING_PAGES, 1)])
        guest.channel.call(Request.GET_FEATURES)
        for _ in range(1000):
            if guest.ring.driver.take_used():
                return
            guest.channel.call(Request.GET_FEATURES)  # queues have their turns between messages
        pytest.fail("the element was not served")


def _break_ring(guest: ServedGuest) -> None:
    """Publish a head that is no descriptor."""
    guest.ring.add([(RING_PAGES, 1)])
    avail = int(guest.ring.driver.state[AVAIL_ADDRESS]) - guest.ring.ram.address
    guest.ring.ram.words.view("u2")[(avail + RING_ENTRIES) // 2] = SIZE
    guest.ring.driver.publish()
    os.eventfd_write(guest.kick_fd, 1)


def test_a_broken_ring_stops_its_guest_only(running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The hostile guest's error descriptor is signalled, its status says NEEDS_RESET, the log why; others go on."""
    with ServedGuest(connect(tmp_path)) as good, ServedGuest(connect(tmp_path)) as bad:
        bad.channel.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK)
        _break_ring(bad)
        wait_readable(bad.err_fd)
        (status,) = U64.unpack(bad.channel.call(Request.GET_STATUS))
        assert status & Status.NEEDS_RESET
        assert "needs a reset: an available ring entry is no index of the descriptor table" in caplog.text
        assert len(good.report([(RING_PAGES, 1)])) == 1
        assert bad.ring.resident_pages() == set(range(bad.ring.pages))


def test_a_mistake_of_ours_costs_one_guest_its_connection(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody foresaw is logged with its traceback; others go on, and its guest may come back."""

    def fail(index: int, budget: int) -> Turn:
        raise MemoryError("no room for a turn")

    with ServedGuest(connect(tmp_path)) as good, ServedGuest(connect(tmp_path)) as unlucky:
        _, attached = running.server.guests
        monkeypatch.setattr(attached._device, "process", fail)
        unlucky.submit([(RING_PAGES, 1)])
        assert running.await_gone() == "an error in pagetide: MemoryError('no room for a turn')"
        assert "Traceback" in caplog.text
        assert len(good.report([(RING_PAGES, 1)])) == 1
    with ServedGuest(connect(tmp_path)) as again:
        assert len(again.report([(RING_PAGES, 1)])) == 1


def test_after_a_reset_a_broken_guest_is_served_again(running: Running, tmp_path: Path) -> None:
    """Resetting the device and starting the queue afresh is the way back from NEEDS_RESET."""
    with ServedGuest(connect(tmp_path)) as guest:
        _break_ring(guest)
        wait_readable(guest.err_fd)
        guest.channel.call(Request.RESET_DEVICE)
        guest.ring.reset_driver()
        guest.start_queue()
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_a_driver_that_cannot_be_told_is_disconnected(running: Running, tmp_path: Path) -> None:
    """With neither an error descriptor nor a channel for requests, a broken ring closes the connection."""
    with ServedGuest(connect(tmp_path), with_err=False) as guest:
        _break_ring(guest)
        assert "no index of the descriptor table" in running.await_gone()
        wait_readable(guest.channel.fileno())
        with pytest.raises(PeerGoneError):
            guest.channel.call(Request.GET_FEATURES)


def test_a_broken_ring_is_told_on_the_channel_for_requests(running: Running, tmp_path: Path) -> None:
    """A guest with such a channel gets a notification of a changed configuration there."""
    ours, theirs = socket.socketpair()
    with ours, ServedGuest(connect(tmp_path), with_err=False) as guest:
        guest.channel.call(Request.SET_BACKEND_REQ_FD, b"", (theirs.fileno(),))
        theirs.close()
        _break_ring(guest)
        wait_readable(ours.fileno())
        assert len(ours.recv(100)) == 12
        assert len(running.server.guests) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff" * 64, "broke the protocol"),
        (U64.pack(1), "disconnected within a message"),
        (b"\x63\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", "broke the protocol: request 99"),
    ],
)
def test_who_breaks_the_protocol_is_disconnected(running: Running, tmp_path: Path, data: bytes, why: str) -> None:
    """Nonsense, half a message, an unknown request: that connection ends with a reason, the others live."""
    with ServedGuest(connect(tmp_path)) as good:
        with connect(tmp_path) as bad:
            bad.sendall(data)
            bad.shutdown(socket.SHUT_WR)
            assert why in running.await_gone()
        assert len(good.report([(RING_PAGES, 1)])) == 1


def test_memory_that_cannot_be_used_is_refused(running: Running, tmp_path: Path) -> None:
    """A region beyond its file is acknowledged as failed, and the guest's memory and queue stay as they were."""
    with ServedGuest(connect(tmp_path)) as guest:
        region = MemoryRegion(0, PAGE, 0, guest.ring.pages * PAGE)
        with pytest.raises(Exception, match="refused ADD_MEM_REG"):
            guest.channel.call(Request.ADD_MEM_REG, encode_single_region(region), (guest.ring.ram.fd,))
        with pytest.raises(Exception, match="refused SET_MEM_TABLE"):
            guest.channel.set_mem_table([guest.ring.region, region], [guest.ring.ram.fd] * 2)
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_memory_comes_and_goes_while_a_queue_runs(running: Running, tmp_path: Path) -> None:
    """A region added is discarded from, a region removed no more, and the queue's own memory may be mapped anew."""
    other = os.memfd_create("test-second-region")
    os.ftruncate(other, 4 * PAGE)
    os.pwrite(other, b"\1" * (4 * PAGE), 0)
    region = MemoryRegion(0, 4 * PAGE, USER - 64 * PAGE, 0)
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.ADD_MEM_REG, encode_single_region(region), (other,))
        guest.report([(-GPA // PAGE + 1, 2)])
        assert os.fstat(other).st_blocks * 512 == 2 * PAGE
        guest.channel.call(Request.REM_MEM_REG, encode_single_region(region))
        guest.report([(-GPA // PAGE, 1)])
        assert os.fstat(other).st_blocks * 512 == 2 * PAGE
        guest.channel.set_mem_table([guest.ring.region], [guest.ring.ram.fd])
        assert len(guest.report([(RING_PAGES, 1)])) == 1
        (attached,) = running.server.guests
        assert attached.ledger.skipped_bytes()["out_of_range"] == PAGE
    os.close(other)


@pytest.mark.parametrize("request_", [Request.REM_MEM_REG, Request.SET_MEM_TABLE])
def test_memory_that_goes_from_under_a_queue_breaks_it(running: Running, tmp_path: Path, request_: Request) -> None:
    """The message is refused, and the guest is told as of a broken ring; after a reset it is served again."""
    with ServedGuest(connect(tmp_path)) as guest:
        payload = encode_single_region(guest.ring.region) if request_ is Request.REM_MEM_REG else encode_mem_table([])
        with pytest.raises(Exception, match=f"refused {request_.name}"):
            guest.channel.call(request_, payload)
        wait_readable(guest.err_fd)
        (status,) = U64.unpack(guest.channel.call(Request.GET_STATUS))
        assert status & Status.NEEDS_RESET
        guest.submit([(RING_PAGES, 1)])
        guest.channel.set_mem_table([guest.ring.region], [guest.ring.ram.fd])
        assert guest.ring.driver.take_used() == []
        guest.channel.call(Request.RESET_DEVICE)
        guest.ring.reset_driver()
        guest.start_queue()
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_a_stopped_queue_goes_on_where_it_stood(running: Running, tmp_path: Path) -> None:
    """GET_VRING_BASE tells the next element, and starting the queue there misses and repeats nothing."""
    with ServedGuest(connect(tmp_path)) as guest:
        for n in range(3):
            guest.report([(RING_PAGES + n, 1)])
            base = guest.channel.stop_queue(guest.index)
            assert base == 2 * n + 1
            guest.submit([(RING_PAGES + 100 + n, 1)])  # nobody hears this kick
            os.eventfd_read(guest.kick_fd)
            guest.start_queue(base)
            assert len(guest.wait_used()) == 1
        (attached,) = running.server.guests
        assert attached.ledger.snapshot()["reports"] == 6


def test_a_new_kick_descriptor_replaces_the_old(running: Running, tmp_path: Path) -> None:
    """Kicks count on the descriptor that was given last; the queue goes on where it stands."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.report([(RING_PAGES, 1)])
        old, guest.kick_fd = guest.kick_fd, os.eventfd(0, os.EFD_CLOEXEC)
        guest.channel.call(Request.SET_VRING_KICK, U64.pack(guest.index), (guest.kick_fd,))
        os.close(old)
        assert len(guest.report([(RING_PAGES + 1, 1)])) == 1


def test_the_configuration_takes_only_the_drivers_fields(running: Running, tmp_path: Path) -> None:
    """A driver's write of the whole space changes `actual` and not `num_pages`."""
    with ServedGuest(connect(tmp_path)) as guest:
        assert guest.channel.get_config(0, CONFIG_BYTES) == bytes(CONFIG_BYTES)
        guest.channel.set_config(0, bytes(range(1, 17)))
        space = guest.channel.get_config(0, CONFIG_BYTES)
        assert space == bytes(4) + bytes(range(5, 9)) + bytes(4) + bytes(range(13, 17))
        assert space[CONFIG_ACTUAL] == 5


def test_a_disabled_queue_is_left_alone(running: Running, tmp_path: Path) -> None:
    """SET_VRING_ENABLE with 0 stops the queue and with 1 starts it again, with what has come meanwhile."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(guest.index, 0))
        guest.submit([(RING_PAGES, 1)])
        guest.channel.call(Request.GET_FEATURES)
        assert guest.ring.driver.take_used() == []
        guest.channel.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(guest.index, 1))
        assert len(guest.wait_used()) == 1


def test_a_front_end_in_the_order_of_user_mode_linux_is_served(running: Running, tmp_path: Path) -> None:
    """Call descriptor before everything else, features twice, no SET_VRING_ENABLE: the kick starts the queue."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.stop_queue(guest.index)
        guest.ring.reset_driver()
        place = guest.ring.queue_place
        address = VringAddress(
            guest.index, 0, place.desc_user_address, place.used_user_address, place.avail_user_address
        )
        call = guest.channel.call
        call(Request.SET_VRING_CALL, U64.pack(guest.index), (guest.call_fd,))
        call(Request.SET_FEATURES, U64.pack(int(FEATURES)))
        call(Request.SET_FEATURES, U64.pack(int(FEATURES)))
        guest.channel.set_mem_table([guest.ring.region], [guest.ring.ram.fd])
        call(Request.SET_VRING_NUM, VRING_STATE.pack(guest.index, SIZE))
        call(Request.SET_VRING_BASE, VRING_STATE.pack(guest.index, 0))
        call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address))
        call(Request.SET_VRING_KICK, U64.pack(guest.index), (guest.kick_fd,))
        assert len(guest.report([(RING_PAGES, 1)])) == 1


def test_a_call_descriptor_that_comes_late_is_called_once(running: Running, tmp_path: Path) -> None:
    """A queue that is started before its call descriptor comes, as QEMU does, has given elements back in between."""
    with ServedGuest(connect(tmp_path)) as guest:
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index | NO_FD))
        guest.ring.driver.arm_call()
        guest.submit([(RING_PAGES, 1)])
        while not guest.ring.driver.take_used():
            guest.channel.call(Request.GET_FEATURES)
        late_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index), (late_fd,))
        guest.channel.call(Request.GET_FEATURES)
        assert os.eventfd_read(late_fd) == 1
        os.close(late_fd)


def test_a_full_call_descriptor_does_not_hold_up_the_server(running: Running, tmp_path: Path) -> None:
    """An eventfd that would block is a call that is already there."""
    with ServedGuest(connect(tmp_path)) as guest:
        os.set_blocking(guest.call_fd, True)
        guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index), (guest.call_fd,))
        os.eventfd_read(guest.call_fd)
        os.eventfd_write(guest.call_fd, (1 << 64) - 2)
        for n in range(3):
            guest.ring.driver.arm_call()
            guest.submit([(RING_PAGES + n, 1)])
        done = 0
        give_up_s = time.monotonic() + TIMEOUT_S
        while done < 3 and time.monotonic() < give_up_s:
            guest.channel.call(Request.GET_FEATURES)
            done += len(guest.ring.driver.take_used())
        assert done == 3


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
    pairs = [socket.socketpair() for _ in range(2)]
    for _, theirs in pairs:
        running.server.adopt(theirs)
    running.start()
    busy, light = (ServedGuest(ours) for ours, _ in pairs)
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


def test_a_discard_that_fails_is_logged_once(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory that cannot be punched is acknowledged, counted, and said once however often it happens."""
    caplog.set_level(logging.ERROR)
    with ServedGuest(connect(tmp_path)) as guest:
        (attached,) = running.server.guests
        fcntl.fcntl(guest.ring.ram.fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        for _ in range(3):
            guest.report([(RING_PAGES, 1)])
        assert attached.ledger.skipped_bytes()["failed"] == 3 * PAGE
    assert caplog.text.count("could not be discarded: fallocate: Operation not permitted") == 1


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
