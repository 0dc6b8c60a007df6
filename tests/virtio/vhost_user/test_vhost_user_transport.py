"""vhost-user over real sockets: descriptors travel, and ends are noticed."""

import os
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from pagetide.virtio.vhost_user.messages import Message, ProtocolFeature, RemoteProtocolError, Request, encode
from pagetide.virtio.vhost_user.transport import Connection, FrontendChannel, PeerGoneError

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with theirs:
        yield connection, theirs
    connection.close()


def open_fds() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_descriptors_arrive_with_their_own_message(pair: Pair) -> None:
    """Messages sent in one go, the second with a descriptor, come apart with the descriptor at the second."""
    connection, theirs = pair
    theirs.sendall(encode(Message(1)))
    with open("/dev/null", "rb") as file:  # noqa: PTH123
        socket.send_fds(theirs, [encode(Message(12, payload=bytes(8)))], [file.fileno()])
        theirs.sendall(encode(Message(15)))
        first, second, third = (connection.receive() for _ in range(3))
        assert first == Message(1)
        assert third == Message(15)
        assert second is not None
        assert os.fstat(second.fds[0]).st_rdev == os.fstat(file.fileno()).st_rdev
        assert not os.get_inheritable(second.fds[0])
        os.close(second.fds[0])
    assert connection.receive() is None
    assert not connection.at_end


def test_the_end_is_noticed(pair: Pair) -> None:
    """A peer that closes is at its end; sending to it is an error that says so."""
    connection, theirs = pair
    theirs.close()
    assert connection.receive() is None
    assert connection.at_end
    with pytest.raises(PeerGoneError, match="closed the connection"):
        connection.send(Message(1))


def test_descriptors_of_half_a_message_are_closed() -> None:
    """A peer that dies within a message leaves no descriptor open here."""
    before = open_fds()
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with open("/dev/null", "rb") as file:  # noqa: PTH123
        socket.send_fds(theirs, [encode(Message(12, payload=bytes(8)))[:9]], [file.fileno()])
    theirs.close()
    assert connection.receive() is None
    assert open_fds() == before + 2
    connection.close()
    end_s = time.monotonic() + 20  # what may not answer is closed by a thread
    while open_fds() != before:
        assert time.monotonic() < end_s, "a descriptor is left"
        time.sleep(0.001)


def test_more_descriptors_than_a_message_may_have_are_refused_and_closed(pair: Pair) -> None:
    """Nine descriptors are an error, whatever the message is, and none of them stays open."""
    connection, theirs = pair
    with open("/dev/null", "rb") as file:  # noqa: PTH123
        socket.send_fds(theirs, [encode(Message(5))], [file.fileno()] * 9)
    with pytest.raises(RemoteProtocolError, match="file descriptors"):
        connection.receive()


def test_descriptors_for_which_there_is_no_room_are_our_own_fault(pair: Pair) -> None:
    """A process that may open no more says so, and does not blame its peer."""
    connection, theirs = pair
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    socket.send_fds(theirs, [encode(Message(12, payload=bytes(8)))], [0])
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="ulimit -n"):
            connection.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_the_peer_does_not_take_is_kept(pair: Pair) -> None:
    """A full socket leaves the rest for later, and it arrives whole."""
    connection, theirs = pair
    message = Message(24, payload=bytes(range(256)) * 16)
    sent = 1
    while connection.send(message):
        sent += 1
    received = bytearray()
    wanted = sent * len(encode(message))
    while len(received) < wanted:
        received += theirs.recv(1 << 16)
        connection.flush()
    assert bytes(received) == encode(message) * sent
    assert connection.flush()


def test_a_silent_back_end_is_an_error_and_not_a_hang() -> None:
    """A request whose reply does not come in time says which one it was."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = FrontendChannel(ours, timeout_s=0.01)
        with pytest.raises(PeerGoneError, match=r"did not answer GET_FEATURES within 0\.01 s"):
            channel.call(Request.GET_FEATURES)
        channel.close()


def test_a_back_end_that_goes_away_is_an_error() -> None:
    """The end of the connection instead of a reply says at which request it came."""
    ours, theirs = socket.socketpair()
    channel = FrontendChannel(ours, timeout_s=1)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerGoneError, match="closed the connection at GET_FEATURES"):
        channel.call(Request.GET_FEATURES)
    channel.close()
    theirs.close()


@pytest.mark.parametrize(
    ("features", "waits_for"),
    [
        (ProtocolFeature.CONFIG | ProtocolFeature.REPLY_ACK, "SET_CONFIG"),
        (ProtocolFeature.CONFIG, "GET_FEATURES"),
    ],
)
def test_what_is_written_to_the_configuration_is_there_afterwards(features: ProtocolFeature, waits_for: str) -> None:
    """A kick from then on must not be seen before it, so some reply is waited for, also where that has none."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = FrontendChannel(ours, timeout_s=0.01)
        channel.frontend.protocol_features = features
        with pytest.raises(PeerGoneError, match=f"did not answer {waits_for} "):
            channel.set_config(0, bytes(4))
        channel.close()
