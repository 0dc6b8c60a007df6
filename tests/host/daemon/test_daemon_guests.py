"""What the daemon keeps for its guests: sockets made on demand, what was wanted of them, what came back, how late."""

import json
import mmap
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pagetide.host.daemon.server import Server
from pagetide.operate.host.control import ask
from pagetide.virtio.balloon import CMD_ID_STOP, CONFIG_BYTES, Config, Feature, Queue
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.transport import PeerGoneError
from tests.host.daemon.process import Daemon, show
from tests.host.guest.served_guest import ServedGuest, wait_readable
from tests.host.guest_ring import GPA, PAGE, RING_PAGES

pytestmark = pytest.mark.slow


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[list[Daemon]]:
    """A daemon that makes sockets on demand; those that a test adds end with it, too."""
    folder = tmp_path / "guests"
    folder.mkdir()
    daemons = [Daemon(folder, "--socket-dir", str(folder))]
    yield daemons
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def daemon(daemons: list[Daemon]) -> Daemon:
    """The first of them, with a socket for vm1."""
    assert daemons[0].ctl("add", "vm1") == 0
    return daemons[0]


def test_sockets_are_made_and_removed_while_the_daemon_runs(
    daemons: list[Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctl add` makes one, a guest attaches, `ctl remove` waits for it to go; the next daemon has what is left.

    So after a kill and after a stop in order: what was made stays until it is removed.
    """
    (daemon,) = daemons
    assert daemon.ctl("add", "vm1") == daemon.ctl("add", "vm2", "--json") == 0
    one, two = capsys.readouterr().out.splitlines()
    assert [one, json.loads(two)["socket"]] == [str(daemon.folder / f"{name}.sock") for name in ("vm1", "vm2")]
    with daemon.guest("vm1") as guest:
        guest.report([(RING_PAGES, 1)])
        assert daemon.ctl("list") == 0
        lines = capsys.readouterr().out.splitlines()
        assert (lines[1].split()[0], lines[1].split()[-1]) == ("vm1", "serving")
        assert lines[2].split() == ["vm2", *["-"] * 6, "no", "guest"]
        for words, sentence in (
            (("remove", "vm1"), "vm1 is attached"),
            (("remove", "vm3"), "no socket for a guest 'vm3'"),
            (("add", "vm1"), "is called vm1 already"),
            (("add", "../vm"), "no name for a guest"),
            (("add", "x" * 65), "no name for a guest"),
        ):
            assert daemon.ctl(*words) == 1
            assert sentence in capsys.readouterr().err
    daemon.stop(signal.SIGKILL)
    daemons.append(Daemon(daemon.folder, "--socket-dir", str(daemon.folder)))
    with daemons[1].guest("vm2") as guest:
        guest.report([(RING_PAGES, 1)])
    assert daemons[1].ctl("remove", "vm1") == 0
    assert not (daemon.folder / "vm1.sock").exists()
    assert daemons[1].stop()[0] == 0
    assert [entry.name for entry in daemon.folder.iterdir()] == ["vm2.sock"]
    daemons.append(Daemon(daemon.folder, "--socket-dir", str(daemon.folder)))
    with daemons[2].guest("vm2") as guest:
        guest.report([(RING_PAGES, 1)])


def test_a_name_is_one_guest(daemons: list[Daemon], capsys: pytest.CaptureFixture[str]) -> None:
    """No socket is made whose guest would be called as another is, and no guest is called as another socket."""
    (daemon,) = daemons
    assert daemon.ctl("add", "vm1") == daemon.ctl("add", "vm1-3") == 0
    with daemon.guest("vm1"), daemon.guest("vm1"):
        assert daemon.ctl("add", "vm1-2") == 1
        assert "is called vm1-2 already" in capsys.readouterr().err
        with daemon.guest("vm1"):
            assert daemon.ctl("show", "vm1-4") == 0


def test_a_socket_whose_wishes_stay_stays(daemons: list[Daemon], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be forgotten is said, and the guest of that socket is served as before."""
    (daemon,) = daemons
    assert daemon.ctl("add", "vm1") == 0
    (daemon.folder / "vm1.sock.wishes.json" / "in the way").mkdir(parents=True)
    assert daemon.ctl("remove", "vm1") == 1
    assert "cannot be forgotten, so its socket stays" in capsys.readouterr().err
    with daemon.guest("vm1") as guest:
        guest.report([(RING_PAGES, 1)])


def test_what_was_wanted_of_a_guest_outlives_its_connection(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Target, pause and inhibit are as they were when a guest comes back on its socket; a new socket starts without."""
    with daemon.guest("vm1"):
        for words in (("set", "vm1", "target=3MiB"), ("pause", "vm1"), ("inhibit", "vm1")):
            assert daemon.ctl(*words) == 0
    with daemon.guest("vm1") as guest:
        shown = show(daemon, "vm1", capsys)
        assert (shown["target_bytes"], shown["paused"], shown["inhibited"]) == (3 << 20, True, True)
        assert Config.decode(guest.channel.get_config(0, CONFIG_BYTES)).num_pages == 256
        guest.submit([(RING_PAGES, 1)])
        assert daemon.ctl("resume", "vm1") == 0
        guest.wait_used()
        assert len(guest.ring.resident_pages()) == guest.ring.pages
    assert daemon.ctl("remove", "vm1") == daemon.ctl("add", "vm1") == 0
    with daemon.guest("vm1") as guest:
        shown = show(daemon, "vm1", capsys)
        assert (shown["target_bytes"], shown["paused"], shown["inhibited"]) == (4 << 20, False, False)


def test_a_guests_page_map_is_told_in_pieces(daemon: Daemon) -> None:
    """Each block of 2 MiB as the host sees it, from any block on; of nobody there is none."""
    with daemon.guest("vm1") as guest:
        told = ask(daemon.control, {"command": "map", "guest": "vm1"})["page_map"]
        assert told == {"first": 0, "blocks": 2, "states": "hh", "regions": [[GPA, 1024 * PAGE, 0]]}
        guest.report([(512, 512)])
        told = ask(daemon.control, {"command": "map", "guest": "vm1", "first": 1})["page_map"]
        assert told["states"] == "r"
    assert ask(daemon.control, {"command": "map", "guest": "vm2"})["error"] is not None


def test_refaults_and_lag_are_shown(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that was discarded counts once when it is touched again, a page never discarded does not; lag is told."""
    with daemon.guest("vm1") as guest:
        guest.report([(RING_PAGES, 8)])
        guest.ring.ram.words[RING_PAGES * PAGE // 8] = 1
        guest.ring.ram.words[(RING_PAGES + 7) * PAGE // 8] = 1
        guest.ring.ram.words[(RING_PAGES + 8) * PAGE // 8] = 1
        for refaulted in (2, 2):
            shown = show(daemon, "vm1", capsys)
            assert isinstance(shown["ledger"], dict)
            assert shown["ledger"]["refaulted_bytes"] == refaulted * PAGE
        guest.report([(RING_PAGES, 8)])
        guest.ring.ram.words[RING_PAGES * PAGE // 8] = 1
        shown = show(daemon, "vm1", capsys)
        assert isinstance(shown["ledger"], dict)
        assert shown["ledger"]["refaulted_bytes"] == 3 * PAGE
        lag = shown["lag"]
        assert isinstance(lag, dict)
        assert lag["count"] == 2
        assert 0 < lag["p50_us"] <= lag["p99_us"] <= lag["max_us"]
        assert daemon.ctl("show", "vm1") == 0
        assert "lag: p50" in capsys.readouterr().out


def test_a_round_of_hints_is_asked_for_and_shown(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """`ctl hint` waits for the round's end and says what came; a guest that does not hint is an error."""
    with daemon.guest("vm1", queue=Queue.FREE_PAGE) as guest:
        asked = threading.Thread(target=_hint, args=(guest,))
        asked.start()
        assert daemon.ctl("hint", "vm1") == 0
        asked.join()
        assert "vm1 hinted 16 KiB in 2 hints" in capsys.readouterr().err
    with daemon.guest("vm1", features=int(Feature.VERSION_1 | Feature.REPORTING)):
        assert daemon.ctl("hint", "vm1") == 1
        assert "has not accepted free page hinting" in capsys.readouterr().err


def test_a_guest_that_goes_amid_a_round_ends_it(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """`ctl hint` says so in one sentence, and does not wait for what will not come."""
    with daemon.guest("vm1", queue=Queue.FREE_PAGE) as guest:

        def leave() -> None:
            while Config.decode(guest.channel.get_config(0, CONFIG_BYTES)).free_page_hint_cmd_id == CMD_ID_STOP:
                threading.Event().wait(0.01)
            guest.channel.close()

        leaves = threading.Thread(target=leave)
        leaves.start()
        assert daemon.ctl("hint", "vm1") == 1
        leaves.join()
    assert "vm1 has gone before the round was over" in capsys.readouterr().err


def _hint(guest: ServedGuest) -> None:
    """Wait for a command id, and answer it as a driver does."""
    while (cmd_id := Config.decode(guest.channel.get_config(0, CONFIG_BYTES)).free_page_hint_cmd_id) == CMD_ID_STOP:
        threading.Event().wait(0.01)
    word = guest.ring.ram.words.view("u4")
    for value, blocks in ((cmd_id, 2), (CMD_ID_STOP, 0)):
        word[(RING_PAGES * PAGE) // 4] = value
        guest.put([(GPA + RING_PAGES * PAGE, 4)], writable=False)
        for n in range(blocks):
            guest.put([(GPA + (RING_PAGES + 2 + 2 * n) * PAGE, 2 * PAGE)], writable=True)


@pytest.mark.parametrize("kept_bytes", [0, 5 * PAGE])
def test_a_guest_that_cuts_its_file_short_goes_alone(
    daemons: list[Daemon], kept_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rings, or the pages that they name, are no more: its connection ends with a reason, and no other does."""
    (daemon,) = daemons
    assert daemon.ctl("add", "good") == daemon.ctl("add", "bad") == 0
    pages = 32
    with daemon.guest("good") as good, daemon.guest("bad", queue=Queue.INFLATE) as bad:
        fd = os.memfd_create("test-unsealed")
        os.ftruncate(fd, pages * PAGE)
        os.pwrite(fd, bad.ring.ram.words[: pages * PAGE // 8].tobytes(), 0)
        bad.channel.set_mem_table([bad.ring.region._replace(size_bytes=pages * PAGE)], [fd])
        with mmap.mmap(fd, pages * PAGE) as ram:
            ring = np.frombuffer(ram, np.int64)
            bad.ring.driver.add_element(np.array([GPA + 20 * PAGE]), np.array([64]), writable=False)
            bad.ring.driver.publish()
            ring[: 5 * PAGE // 8] = bad.ring.ram.words[: 5 * PAGE // 8]
            del ring
        os.ftruncate(fd, kept_bytes)
        os.close(fd)
        os.eventfd_write(bad.kick_fd, 1)
        wait_readable(bad.channel.fileno())
        with pytest.raises(PeerGoneError):
            bad.channel.call(Request.GET_FEATURES)
        good.report([(RING_PAGES, 1)])
    daemon.stopped_saying("its memory file was cut short while it was in use")


def test_lag_counts_from_when_the_kick_could_have_come(tmp_path: Path) -> None:
    """By a clock of the test's: a report waits from the last look without it, and through a pause."""
    now_ns = [0]
    with Server(clock_ns=lambda: now_ns[0]) as server:
        server.listen(tmp_path / "host")
        made: list[ServedGuest] = []
        attach = threading.Thread(target=lambda: made.append(_attach(tmp_path / "host")))
        attach.start()
        while attach.is_alive():
            server.run_once(0.01)
        with made[0] as guest:
            server.run_once(0)
            now_ns[0] = 1000
            server.run_once(0)
            guest.submit([(RING_PAGES, 1)])
            now_ns[0] = 4000
            server.run_once(0)
            (attached,) = server.guests
            assert (attached.lag.count, attached.lag.max_ns) == (1, 3000)
            attached.wishes.want(paused=True)
            attached.follow_wishes()
            guest.submit([(RING_PAGES, 1)])
            server.run_once(0)
            assert attached.lag.count == 1
            now_ns[0] = 1_004_000
            attached.wishes.want(paused=False)
            attached.follow_wishes()
            server.run_once(0)
            assert (attached.lag.count, attached.lag.max_ns) == (2, 1_000_000)
        server.run_once(0)


def _attach(path: Path) -> ServedGuest:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    return ServedGuest(sock)
