"""A daemon is restarted, killed or replaced, and its guests go on with the same connection."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.host.daemon import handover
from pagetide.host.daemon.handover import HandoverError, Predecessor
from pagetide.operate.host.control import ask
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_NUM_PAGES
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import U64
from tests.host.daemon.process import Daemon
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import PAGE
from tests.host.little_service_manager import START_MAX_S, LittleServiceManager
from tests.needed import need

pytestmark = pytest.mark.slow

UNIT = Path(__file__).parents[3] / "deploy/pagetide.service"
FREE_PAGE = 100


def attach(folder: Path) -> ServedGuest:
    """A guest at the first socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(folder / "one.sock"))
    return ServedGuest(sock)


def report(guest: ServedGuest, page: int) -> None:
    """Write to a page and to the one after it, and report the first: it is gone, and nothing else."""
    words, at = guest.ring.ram.words, page * PAGE // 8
    words[at] = words[at + PAGE // 8] = page
    guest.report([(page, 1)])
    assert page not in guest.ring.resident_pages()
    assert words[at + PAGE // 8] == page


def guests_of(folder: Path) -> list[dict[str, object]]:
    """What ctl lists."""
    found: list[dict[str, object]] = ask(folder / "control", {"command": "list"})["guests"]
    return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[LittleServiceManager]:
    """A service manager that has started a daemon with one socket."""
    with LittleServiceManager(tmp_path, "--socket", str(tmp_path / "one.sock"), watchdog_s=1.0) as made:
        yield made


def test_a_guest_lives_through_restarts_and_kills(manager: LittleServiceManager, tmp_path: Path) -> None:
    """The connection, what was negotiated and told, the queues, the account and the target are as they were."""
    with attach(tmp_path) as guest:
        guest.channel.set_config(CONFIG_ACTUAL, (7).to_bytes(4, "little"))
        report(guest, FREE_PAGE)
        for count, number in enumerate((signal.SIGTERM, signal.SIGKILL) * 2, 2):
            ask(tmp_path / "control", {"command": "set", "guest": "one", "target_bytes": (1024 - count) * PAGE})
            manager.restart(number)
            report(guest, FREE_PAGE + 2 * count)
            assert guest.channel.get_config(CONFIG_ACTUAL, 4) == (7).to_bytes(4, "little")
            assert guest.channel.get_config(CONFIG_NUM_PAGES, 4) == count.to_bytes(4, "little")
            (state,) = guests_of(tmp_path)
            assert (state["name"], state["ledger"]["reports"]) == ("one", count)  # type: ignore[index]
        assert guest.channel.stop_queue(guest.index) == count
        guest.start_queue(count)
        report(guest, FREE_PAGE)
        assert sorted(name.partition("-")[0] for name in manager.store) == ["control", "guest", "socket"]
    deadline_s = time.monotonic() + TIMEOUT_S
    while any(name.startswith("guest") for name in manager.store):
        assert time.monotonic() < deadline_s, "a guest that has gone is kept"
        time.sleep(0.01)
    assert "level=error" not in "".join(manager.log)


def test_messages_are_answered_once_whenever_the_daemon_is_killed(
    manager: LittleServiceManager, tmp_path: Path
) -> None:
    """A front-end that talks without pause has one right reply to each request, through kills at random moments."""
    over, failures, rounds = threading.Event(), list[BaseException](), [0]
    with attach(tmp_path) as guest:
        guest.channel._timeout_s = START_MAX_S  # a successor is started meanwhile

        def talk() -> None:
            try:
                while not over.is_set():
                    wanted = rounds[0].to_bytes(4, "little")
                    guest.channel.set_config(CONFIG_ACTUAL, wanted)
                    assert guest.channel.get_config(CONFIG_ACTUAL, 4) == wanted
                    call_fd = os.eventfd(0, os.EFD_CLOEXEC)
                    guest.channel.call(Request.SET_VRING_CALL, U64.pack(guest.index), (call_fd,))
                    os.close(call_fd)
                    if rounds[0] % 8 == 0:
                        base = guest.channel.stop_queue(guest.index)
                        guest.start_queue(base)
                    if rounds[0] % 64 == 0:
                        _, fd = guest.channel.get_inflight(4, 128) or (None, -1)
                        os.close(fd)
                    rounds[0] += 1
            except BaseException as error:
                failures.append(error)

        talker = threading.Thread(target=talk)
        talker.start()
        rng = random.Random(2)
        for _ in range(4):
            seen, end_s = rounds[0], time.monotonic() + START_MAX_S
            while rounds[0] < seen + 20 and not failures:
                assert time.monotonic() < end_s
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.02))
            manager.restart(signal.SIGKILL)
        over.set()
        talker.join(START_MAX_S)
        assert not talker.is_alive()
        assert not failures, failures
        guest.start_queue(guest.channel.stop_queue(guest.index))
        report(guest, FREE_PAGE)


def test_the_service_manager_hears_what_it_should(manager: LittleServiceManager) -> None:
    """READY once all sockets are there, WATCHDOG at half its time, STATUS, and STOPPING at the end."""
    assert manager.told[0] == "READY=1"
    manager.wait_for("STATUS=0 guests attached")
    manager.told.clear()
    manager.wait_for("WATCHDOG=1")
    manager.end(signal.SIGTERM)
    manager.wait_for("STOPPING=1")


def test_a_socket_that_the_service_manager_opened_is_served(tmp_path: Path) -> None:
    """Socket activation: a listening socket of any name, at a path that nobody else was told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening, contextlib.ExitStack() as resources:
        listening.bind(str(tmp_path / "two.sock"))
        listening.listen(1)
        with LittleServiceManager(tmp_path, "--socket", str(tmp_path / "one.sock")) as manager:
            manager.end(signal.SIGTERM)
            manager.store["pagetide.socket"] = [os.dup(listening.fileno())]
            manager.start()
            sock = resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(str(tmp_path / "two.sock"))
            report(resources.enter_context(ServedGuest(sock)), FREE_PAGE)


def take_over(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A successor of a daemon."""
    command = [sys.executable, "-m", "pagetide.cli", "serve", "--take-over", "--control", str(folder / "control")]
    command += options
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_successor_takes_over_and_the_old_daemon_ends(tmp_path: Path) -> None:
    """Without a service manager: guests and sockets are the successor's, and of the old daemon nothing is missed."""
    old, new = Daemon(tmp_path), None
    try:
        with attach(tmp_path) as guest:
            report(guest, FREE_PAGE)
            new = take_over(tmp_path)
            _, log = old.process.communicate(timeout=START_MAX_S)
            assert "handed over 1 guest to the daemon" in log
            assert "lose" not in log
            assert old.process.returncode == 0
            report(guest, FREE_PAGE + 2)
            (state,) = guests_of(tmp_path)
            assert (state["name"], state["ledger"]["reports"]) == ("one", 2)  # type: ignore[index]
            with old.guest("two") as another:
                report(another, FREE_PAGE)
    finally:
        old.close()
        if new is not None:
            new.send_signal(signal.SIGTERM)
            log = new.communicate(timeout=TIMEOUT_S)[1]
            assert "level=error" not in log
            assert new.returncode == 0
    assert not (tmp_path / "one.sock").exists()


@pytest.mark.parametrize("same", [False, True], ids=["other options", "the same"])
def test_a_successor_names_options_that_differ(same: bool, tmp_path: Path) -> None:
    """One that makes no sockets where the old one did, and verifies more, says so; one that is alike says nothing."""
    options = ("--socket-dir", str(tmp_path), "--verify", "0.5", "--no-page-poison")
    old = Daemon(tmp_path, *options)
    new = take_over(tmp_path, *(options if same else ("--no-free-page-hint",)))
    try:
        old.process.communicate(timeout=START_MAX_S)
        assert guests_of(tmp_path) == []
        assert len(ask(tmp_path / "control", {"command": "add", "guest": "three"})["socket"] or "") > 0 or not same
    finally:
        old.close()
        new.send_signal(signal.SIGTERM)
        log = new.communicate(timeout=TIMEOUT_S)[1]
    wanted = (
        f"--socket-dir is none, and was {re.escape(str(tmp_path))}",
        "--verify is 1, and was 0.5",
        r"to guests is \w[\w ]* DEFLATE_ON_OOM PAGE_POISON [\w ]*, and was \w[\w ]*_OOM FREE_PAGE_HINT REPORTING",
    )
    assert log.count("not as it was with the daemon before this one") == (0 if same else len(wanted))
    assert all(re.search(words, log) for words in wanted) == (not same)


@pytest.mark.parametrize("asked", [False, True], ids=["at once", "when it has all"])
def test_a_successor_that_fails_leaves_the_old_daemon_serving(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs up, or reads another version, has taken nothing; the old daemon goes on and says so."""
    old = Daemon(tmp_path)
    try:
        with attach(tmp_path) as guest:
            report(guest, FREE_PAGE)
            if asked:
                predecessor = Predecessor(tmp_path / "control")
                assert sorted(len(fds) for fds in predecessor.kept.values()) == [1, 1, 1, 2]
                predecessor.close()
                for fds in predecessor.kept.values():
                    for fd in fds:
                        os.close(fd)
            else:
                monkeypatch.setattr(handover, "VERSION", 9)
                with pytest.raises(HandoverError, match="is in version 1, and this one reads version 9"):
                    Predecessor(tmp_path / "control")
            report(guest, FREE_PAGE + 2)
            (state,) = guests_of(tmp_path)
            assert state["ledger"]["reports"] == 2  # type: ignore[index]
        assert "this daemon goes on" in old.stop()[1]
    finally:
        old.close()


def test_a_daemon_of_a_service_manager_is_not_taken_over(manager: LittleServiceManager, tmp_path: Path) -> None:
    """Two would serve otherwise, since the manager starts it again."""
    assert manager.process.poll() is None
    with pytest.raises(HandoverError, match="systemctl restart"):
        Predecessor(tmp_path / "control")


def test_a_stop_says_who_loses_the_balloon(tmp_path: Path) -> None:
    """Without a successor, guests whose front-end keeps nothing are named at SIGTERM; without guests nobody is."""
    daemon = Daemon(tmp_path)
    try:
        with attach(tmp_path) as guest:
            report(guest, FREE_PAGE)
            assert "1 guest loses its balloon" in daemon.stop()[1]
    finally:
        daemon.close()
    daemon = Daemon(tmp_path)
    try:
        assert "balloon" not in daemon.stop()[1]
    finally:
        daemon.close()


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """The unit file means what it says, as far as systemd can tell."""
    need("systemd-analyze")
    unit = tmp_path / "pagetide.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/pagetide", sys.executable))
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
