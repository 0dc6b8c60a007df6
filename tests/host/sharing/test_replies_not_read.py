"""Who reads nothing, or leaves a message half sent, is waited for so long and no longer; who goes on is kept."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pagetide.host.daemon.server import Server
from pagetide.host.sharing.patience import PATIENCE_S, Patience
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from tests.host.guest.served_guest import wait_readable

pytestmark = pytest.mark.alone

_ASK = encode(Message(Request.GET_FEATURES))


def test_who_goes_on_in_time_is_waited_for_no_more() -> None:
    """Each party has its own time, from when it was first noted."""
    patience: Patience[str] = Patience()
    assert patience.until_next_s(0.0, -1) == -1
    patience.note("reads", 0.0)
    patience.note("does not", 1.0)
    patience.note("reads", None)
    assert patience.until_next_s(2.0, -1) == PATIENCE_S - 1.0
    assert patience.until_next_s(2.0, 0.5) == 0.5
    assert patience.take_due(PATIENCE_S + 0.9) == []
    assert patience.take_due(PATIENCE_S + 1.0) == ["does not"]
    assert patience.take_due(2 * PATIENCE_S) == []


class Rig:
    """A server whose clock is set by hand, and connections to it."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        self.folder = folder
        self.server = Server(clock_ns=lambda: int(self.now_s * 1e9))
        self.server.listen(folder / "guest")
        self.server.listen_control(folder / "control")

    def connect(self, name: str) -> socket.socket:
        """A connection that does not block."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.folder / name))
        self.rounds(2)
        sock.setblocking(False)
        return sock

    def rounds(self, count: int = 1) -> None:
        """Let the server deal with what there is."""
        for _ in range(count):
            self.server.run_once(0)

    def fill(self, sock: socket.socket, request: bytes) -> None:
        """Send requests and read no answer, until the server takes no more."""
        for _ in range(100_000):
            try:
                assert sock.send(request) == len(request)
            except BlockingIOError:
                self.rounds(20)
                with suppress(BlockingIOError):
                    sock.send(request)
                    continue
                return
            self.rounds()
        raise AssertionError("all was taken")

    def pass_s(self, seconds: float) -> None:
        """Time passes, for rests as well."""
        self.now_s += seconds
        self.server._costs.clock_s += seconds
        self.rounds(3)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """One of them."""
    rig = Rig(tmp_path)
    yield rig
    rig.server.close()


def _assert_gone_after_patience(rig: Rig) -> None:
    """The one guest is there until it was waited for long enough."""
    assert len(rig.server.guests) == 1, "nobody has seen it hang up"
    rig.pass_s(PATIENCE_S + 1)
    assert not rig.server.guests


def test_a_guest_that_reads_nothing_is_given_up(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Its connection is closed when its time is over, for which the loop wakes."""
    with rig.connect("guest") as sock:
        rig.fill(sock, _ASK)
        rig.pass_s(PATIENCE_S - 1)
        assert len(rig.server.guests) == 1
        assert 0 <= rig.server._until_next_s(-1) <= 1
        rig.pass_s(2)
        assert not rig.server.guests
    assert "does not read its replies" in caplog.text


def test_a_guest_that_has_hidden_its_own_end_in_its_connection_goes(rig: Rig) -> None:
    """Nobody can hang up for it any more, since the only other holder is the message that nobody looks at."""
    with rig.connect("guest") as sock:
        rig.fill(sock, _ASK)
        # Room for one more message, which the server does not look at while its replies are not read.
        left = len(_ASK)
        while left:
            with suppress(BlockingIOError):
                sock.recv(1 << 12)
            rig.rounds(4)
            with suppress(BlockingIOError):
                left -= socket.send_fds(sock, [_ASK[-left:]], [sock.fileno()])
            rig.rounds(0)
        rig.fill(sock, _ASK)
    rig.rounds(4)
    _assert_gone_after_patience(rig)


def test_a_message_with_ones_own_end_that_never_ends_is_no_way_to_stay(rig: Rig) -> None:
    """Half a message with the connection's other end is all that holds the connection open; then it goes."""
    with rig.connect("guest") as sock:
        socket.send_fds(sock, [_ASK[:5]], [sock.fileno()])
        rig.rounds(2)
    rig.rounds(2)
    _assert_gone_after_patience(rig)


def test_who_reads_at_last_is_kept(rig: Rig) -> None:
    """A front-end that was stopped in a debugger, say, takes its replies and stays, however long that goes on."""
    with rig.connect("guest") as sock:
        for _ in range(3):
            rig.fill(sock, _ASK)
            rig.pass_s(PATIENCE_S - 1)
            for _ in range(1000):
                with suppress(BlockingIOError):
                    while sock.recv(1 << 16):
                        pass
                rig.pass_s(0.001)
            rig.pass_s(3 * PATIENCE_S)
            assert len(rig.server.guests) == 1


def test_a_control_client_that_reads_nothing_is_let_go(rig: Rig) -> None:
    """Its answers are not kept for ever; another one is answered."""
    ask = b'{"command":"list"}\n'
    with rig.connect("control") as sock:
        rig.fill(sock, ask * 20)
        control = rig.server._control
        assert control is not None
        for _ in range(2000):
            if any(client.unsent for client in control._clients):
                break
            rig.pass_s(0.01)
        assert len(control._clients) == 1
        rig.pass_s(PATIENCE_S + 1)
        assert len(control._clients) == 0
        with rig.connect("control") as other:
            other.send(ask)
            rig.rounds(4)
            wait_readable(other.fileno())
            assert b'"error":null' in other.recv(1 << 16)
