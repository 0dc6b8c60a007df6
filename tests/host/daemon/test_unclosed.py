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
from pagetide.host.daemon.server import Server
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from pagetide.virtio.vhost_user.payloads import U64
from tests.host.guest.served_guest import TIMEOUT_S

pytestmark = pytest.mark.alone


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
