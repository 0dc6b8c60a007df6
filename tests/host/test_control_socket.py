"""The control socket with many guests, slow clients, and no descriptors left."""

import contextlib
import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.host.control_socket import ControlSocket
from pagetide.host.fd_events import FdEvents
from pagetide.linux import process_cpu_s
from tests.host.daemon_process import Daemon
from tests.host.guest_ring import RING_PAGES
from tests.host.served_guest import wait_readable

ANSWER_BYTES = 4 << 20
"""More than a socket takes at once."""


class Rig:
    """A control socket whose answers are long, and the loop that serves it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = FdEvents()
        self.asked: list[bytes] = []
        self.control = ControlSocket(path, self.events, self._answer)

    def _answer(self, line: bytes) -> bytes:
        self.asked.append(line)
        return bytes([ord("a") + len(self.asked)]) * ANSWER_BYTES + b"\n"

    def connect(self) -> socket.socket:
        """A client."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.path))
        sock.setblocking(False)
        return sock

    def read(self, sock: socket.socket, lines: int) -> bytes:
        """What comes until there are so many lines."""
        data = b""
        while data.count(b"\n") < lines:
            self.events.wait(0)
            with contextlib.suppress(BlockingIOError):
                more = sock.recv(1 << 20)
                assert more
                data += more
        return data


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """One of them."""
    rig = Rig(tmp_path / "control")
    yield rig
    rig.control.close()
    rig.events.close()


def test_answers_come_whole_however_long_they_are(rig: Rig) -> None:
    """Two requests in one go are answered one after the other, and a client that hangs up is forgotten."""
    with rig.connect() as sock:
        sock.sendall(b"one\ntwo\n")
        data = rig.read(sock, 2)
    assert data == b"b" * ANSWER_BYTES + b"\n" + b"c" * ANSWER_BYTES + b"\n"
    rig.events.wait(0)
    assert rig.asked == [b"one", b"two"]


def test_who_does_not_read_is_asked_nothing_more(rig: Rig) -> None:
    """No second answer is made before the first is taken, and another client is answered meanwhile."""
    with rig.connect() as slow, rig.connect() as other:
        slow.sendall(b"one\n" * 1000)
        for _ in range(10):
            rig.events.wait(0)
        assert len(rig.asked) == 1
        other.sendall(b"two\n")
        assert rig.read(other, 1) == b"c" * ANSWER_BYTES + b"\n"
        assert len(rig.asked) == 2
        slow.close()
        rig.events.wait(0)
        assert rig.events.wait(0) == 0


@contextlib.contextmanager
def _few_descriptors(soft: int) -> Iterator[None]:
    """Let whoever is started meanwhile have so many, unless it asks for more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_many_guests_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """150 guests need more descriptors than a shell allows, and a list longer than a socket takes at once."""
    with _few_descriptors(256):
        daemon = Daemon(tmp_path)
    try:
        with contextlib.ExitStack() as resources:
            for _ in range(150):
                resources.enter_context(daemon.guest("one", pages=RING_PAGES + 1))
            capsys.readouterr()
            assert daemon.ctl("list", "--json") == 0
            text = capsys.readouterr().out
            assert len(json.loads(text)) == 151
            assert len(text) > 300_000
    finally:
        daemon.close()


def _answer(control: Path) -> bytes:
    """The beginning of an answer; nothing from a daemon that hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(control))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b'{"command":"list"}\n')
            wait_readable(client.fileno())
            return client.recv(1)
        return b""


def test_a_daemon_without_descriptors_goes_on(tmp_path: Path) -> None:
    """Who is attached is served, who asks is turned away and not waited for in a busy loop, and later all is well."""
    daemon = Daemon(tmp_path)
    pid = daemon.process.pid
    try:
        with daemon.guest("one") as guest, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            guest.report([(RING_PAGES, 1)])
            used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(soft)) - used), hard))
            other.connect(str(daemon.folder / "two.sock"))
            assert _answer(daemon.control) == b""
            guest.report([(RING_PAGES + 1, 1)])
            before_s = process_cpu_s(pid)
            for _ in range(10):
                assert _answer(daemon.control) == b""
            guest.report([(RING_PAGES + 2, 1)])
            after_s = process_cpu_s(pid)
            assert before_s is not None
            assert after_s is not None
            assert after_s - before_s < 0.1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert _answer(daemon.control) == b"{"
            guest.report([(RING_PAGES + 3, 1)])
        assert "no more guests can be accepted" in daemon.stop()[1]
    finally:
        daemon.close()
