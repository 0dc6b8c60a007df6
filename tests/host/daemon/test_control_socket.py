"""The control socket with many guests, slow clients, and no descriptors left."""

import contextlib
import json
import resource
import socket
import threading
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest

from pagetide.host.daemon.control_socket import CLIENTS_MAX, ControlClient, ControlSocket
from pagetide.host.device.allowance import CHARGE_MAX_S
from pagetide.host.guest.fd_events import FdEvents
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.patience import Patience
from pagetide.processes import process_cpu_s
from pagetide.virtio.vhost_user.transport import FrontendChannel
from tests.host.daemon.process import Daemon
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest, wait_readable
from tests.host.guest_ring import RING_PAGES

pytestmark = pytest.mark.alone

ANSWER_BYTES = 4 << 20
"""More than a socket takes at once."""


class Rig:
    """A control socket whose answers are long, and the loop that serves it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = FdEvents()
        self.costs: Costs[Hashable] = Costs()
        self.asked: list[bytes] = []
        self.answer_bytes = ANSWER_BYTES
        self.control = ControlSocket(
            path, self.events, self._answer, self.costs, patience=Patience(), clock_s=lambda: 0.0
        )

    def round(self) -> None:
        """A round of the loop."""
        self.costs.begin_round(self.events.take_passed_s())
        for rested in self.costs.take_rested():
            if isinstance(rested, ControlClient):
                self.control.attend(rested)
            else:
                self.control.listen()
        self.events.wait(0)
        if self.control.has_work:
            self.control.turn()
        self.costs.lap_s()
        self.costs.end_round()

    def _answer(self, line: bytes) -> bytes:
        self.asked.append(line)
        return bytes([ord("a") + len(self.asked) % 26]) * self.answer_bytes + b"\n"

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
            self.round()
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
    rig.round()
    assert rig.asked == [b"one", b"two"]


def test_who_does_not_read_is_asked_nothing_more(rig: Rig) -> None:
    """No second answer is made before the first is taken, and another client is answered meanwhile."""
    with rig.connect() as slow, rig.connect() as other:
        slow.sendall(b"one\n" * 1000)
        for _ in range(10):
            rig.round()
        assert len(rig.asked) == 1
        other.sendall(b"two\n")
        assert rig.read(other, 1) == b"c" * ANSWER_BYTES + b"\n"
        assert len(rig.asked) == 2
        slow.close()
        rig.round()
        assert rig.events.look(0) == 0


def test_who_asks_without_pause_keeps_nobody_waiting(rig: Rig) -> None:
    """One request is answered a round, each client's in turn: a single one among four floods waits for four."""
    rig.answer_bytes = 10
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(rig.connect()).sendall(b"flood\n" * 3000)
        for _ in range(20):
            rig.round()
        before = len(rig.asked)
        stack.enter_context(rig.connect()).sendall(b"one\n")
        for number in range(1, 8):
            rig.round()
            assert len(rig.asked) <= before + number
        assert b"one" in rig.asked[before:]


def test_floods_are_charged_and_nothing_of_them_is_lost(rig: Rig) -> None:
    """Who asks for more than an allowance rests, others are answered meanwhile, and after the rest it goes on."""
    rig.answer_bytes = 10
    with rig.connect() as flood, rig.connect() as other:
        flood.sendall(b"flood\n" * 3000)
        rig.round()
        (client, *_) = rig.control._clients
        while not rig.costs.is_resting(client):
            rig.costs.charge(client, CHARGE_MAX_S)
        rig.control.attend(client)
        asked = len(rig.asked)
        other.sendall(b"two\n")
        for _ in range(10):
            rig.round()
        assert rig.asked[asked:] == [b"two"]
        rig.costs.rest_until(client, 0.0)
        rig.read(flood, 3000)


def test_who_connects_without_end_is_charged(rig: Rig) -> None:
    """What clients have cost that are gone is the socket's: then nobody is accepted for a while, and later all are."""
    rig.answer_bytes = 10
    while not rig.costs.is_resting(rig.control):
        with rig.connect() as sock:
            sock.sendall(b"one\n")
            rig.round()
            rig.round()
            for client in rig.control._clients:
                rig.costs.charge(client, CHARGE_MAX_S / 10)
        rig.round()
    with rig.connect() as sock:
        sock.sendall(b"two\n")
        rig.round()
        assert not rig.control._clients
        rig.costs.rest_until(rig.control, 0.0)
        rig.read(sock, 1)


def test_a_client_that_waits_for_its_answer_does_not_go_for_another(rig: Rig) -> None:
    """One too many comes: of all clients one goes that is idle."""
    with contextlib.ExitStack() as stack:
        asks = stack.enter_context(rig.connect())
        asks.sendall(b"one\n")
        rig.round()
        for _ in range(CLIENTS_MAX):
            stack.enter_context(rig.connect())
        for _ in range(CLIENTS_MAX + 1):
            rig.round()
        assert len(rig.control._clients) == CLIENTS_MAX
        rig.read(asks, 1)


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
            FrontendChannel(other, timeout_s=TIMEOUT_S).negotiate(0)  # until it is accepted
            guest.report([(RING_PAGES + 3, 1)])
            ServedGuest(other).close()
        log = daemon.stop()[1]
        assert log.count("no more guests can be accepted") == 1
        assert log.count("guests can be accepted again") == 1
    finally:
        daemon.close()


def test_a_daemon_without_guests_and_descriptors_accepts_again(tmp_path: Path) -> None:
    """A failed accept is tried again by the clock, at each socket, though no guest goes that could leave a place."""
    daemon = Daemon(tmp_path)
    pid = daemon.process.pid
    try:
        used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(soft)) - used), hard))
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
            for sock, name in zip(socks, ("one", "two"), strict=True):
                sock.connect(str(tmp_path / f"{name}.sock"))
            before_s = process_cpu_s(pid)
            threading.Event().wait(1.0)
            after_s = process_cpu_s(pid)
            assert before_s is not None
            assert after_s is not None
            assert after_s - before_s < 0.1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            for sock in socks:
                ServedGuest(sock).close()
        assert daemon.stop()[1].count("no more guests can be accepted") == 1
    finally:
        daemon.close()
