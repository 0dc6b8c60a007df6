"""Descriptors whose close is not answered: a few threads wait, and their socket accepts nobody until all is closed."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide import foreign_fds
from pagetide.foreign_fds import Closer
from pagetide.host.daemon.guest_sockets import UNCLOSED_MAX
from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.server import Server
from pagetide.host.guest.keep import Keep
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from pagetide.virtio.vhost_user.payloads import U64
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import PAGE, RING_PAGES
from tests.host.server_at_times import ServerAtTimes

pytestmark = pytest.mark.alone

LARGE_PAGES = 4096


class Unanswered:
    """Stands in for a file system that does not answer: a file of it is closed once `answer` was called."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path.touch()
        self.path = path
        self.answers = threading.Event()
        at_once, close = foreign_fds._closes_at_once, foreign_fds._close

        def is_ours(fd: int) -> bool:
            return foreign_fds._link(fd) == str(path)

        def wait_and_close(fd: int) -> None:
            if is_ours(fd):
                self.answers.wait()
            close(fd)

        monkeypatch.setattr(foreign_fds, "_closes_at_once", lambda fd: not is_ours(fd) and at_once(fd))
        monkeypatch.setattr(foreign_fds, "_close", wait_and_close)

    def threads(self) -> int:
        """How many wait for it."""
        return sum(thread.name == "pagetide-close" for thread in threading.enumerate())

    def held(self) -> int:
        """How many descriptors of it are open."""
        links = (foreign_fds._link(int(entry.name)) for entry in Path("/proc/self/fd").iterdir())
        return sum(link == str(self.path) for link in links)


@pytest.fixture
def unanswered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unanswered]:
    """One of them, that answers in the end."""
    made = Unanswered(tmp_path / "served", monkeypatch)
    yield made
    made.answers.set()
    _until(lambda: made.threads() == 0)


def _until(condition: object) -> None:
    assert callable(condition)
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_a_closer_has_a_few_threads_however_many_descriptors_wait(unanswered: Unanswered) -> None:
    """What comes when all threads wait is closed when they go on; in between it is known how much is open."""
    closer = Closer()
    with closer:
        closed = [foreign_fds.close(os.open(unanswered.path, os.O_RDONLY)) for _ in range(20)]
    assert not any(closed)
    assert closer.open_count == 20 == unanswered.held()
    assert unanswered.threads() == foreign_fds._THREADS_MAX
    unanswered.answers.set()
    _until(lambda: closer.open_count == 0)
    assert unanswered.held() == 0


def test_a_socket_whose_guests_gave_what_cannot_be_closed_accepts_no_more(
    unanswered: Unanswered, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who comes waits, which is said once; guests of another socket are accepted, and so is it in the end."""
    caplog.set_level("INFO", "pagetide")
    message = encode(Message(Request.SET_VRING_KICK, 0, U64.pack(0)))
    with Server() as server, unanswered.path.open("rb") as file:
        for name in ("bad", "good"):
            server.listen(tmp_path / name)
        bad = next(sock for sock in server.sockets if sock.name == "bad")
        for _ in range(3 * UNCLOSED_MAX):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "bad"))
                socket.send_fds(sock, [message], [file.fileno()])
                for _ in range(3):
                    server._costs.clock_s += 3.0
                    server.run_once(0)
        assert not server.guests
        assert bad.closer.open_count == UNCLOSED_MAX
        assert unanswered.threads() <= foreign_fds._THREADS_MAX
        assert caplog.text.count("no more guests are accepted until") == 1
        with socket.socket(socket.AF_UNIX) as good:
            good.connect(str(tmp_path / "good"))
            server.run_once(0)
            assert [guest.name for guest in server.guests] == ["good"]
        unanswered.answers.set()
        _until(lambda: bad.closer.open_count == 0)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "bad"))
            for _ in range(60):  # those that waited have hung up meanwhile
                server._costs.clock_s += 3.0
                server.run_once(0)
            assert "bad" in [guest.name for guest in server.guests]
    assert caplog.text.count("guests can be accepted again") == 1


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def _open_fds() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("keeper", [None, Keeper], ids=["nothing kept", "kept"])
def test_memory_is_freed_where_nobody_waits(
    keeper: type[Keeper] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who closes a VM's memory last frees it; however long that takes, others are served, and the next VM is taken."""
    is_freed, held = threading.Event(), threading.Semaphore(0)
    keeps: list[Keep | None] = []
    waited_in_vain: list[int] = []
    close = foreign_fds._close

    def free(fd: int) -> None:
        if os.fstat(fd).st_blocks * 512 == LARGE_PAGES * PAGE:
            (keep,) = keeps
            if keep is None or keep.box.fds[1] not in _open_fds():  # nothing else has it open
                held.release()
            if not is_freed.wait(TIMEOUT_S / 4):
                waited_in_vain.append(fd)
        close(fd)

    monkeypatch.setattr(foreign_fds, "_close", free)
    rig = ServerAtTimes(None if keeper is None else keeper())
    try:
        for name in ("ends", "stays"):
            rig.server.listen(tmp_path / name)
        ends = rig.serving(lambda: ServedGuest(_connected(tmp_path / "ends"), pages=LARGE_PAGES))
        keeps.append(rig.server.guests[0].keep)
        with rig.serving(lambda: ServedGuest(_connected(tmp_path / "stays"))) as stays:
            ends.close()
            assert rig.serving(lambda: held.acquire(timeout=TIMEOUT_S))
            rig.serving(lambda: stays.report([(RING_PAGES, 1)]))
            assert [guest.name for guest in rig.server.guests] == ["stays"]
            rig.serving(lambda: ServedGuest(_connected(tmp_path / "ends"))).close()
            assert not waited_in_vain
            is_freed.set()
    finally:
        is_freed.set()
        rig.close()
