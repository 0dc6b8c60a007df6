"""vhost-user over a Unix stream socket: the only file of the protocol that does I/O.

A `Connection` moves messages and descriptors. A `FrontendChannel` is a front-end's end of it, for callers that wait
for each reply.
"""

import array
import errno
import select
import socket
from collections.abc import Sequence

from pagetide import foreign_fds
from pagetide.virtio.vhost_user.frontend import VhostUserFrontend
from pagetide.virtio.vhost_user.messages import (
    F_PROTOCOL_FEATURES,
    FDS_MAX,
    Message,
    MessageReader,
    ProtocolFeature,
    RemoteProtocolError,
    Request,
    encode,
)
from pagetide.virtio.vhost_user.payloads import (
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    Inflight,
    MemoryRegion,
    VringAddress,
    decode_config,
    decode_inflight,
    decode_u64,
    decode_vring_state,
    encode_config,
    encode_inflight,
    encode_mem_table,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES

_FD_BYTES = array.array("i").itemsize


class PeerGoneError(Exception):
    """The other end is closed, or did not answer in time."""


class Connection:
    """One end of a vhost-user connection. It owns the socket.

    Attributes:
        at_end: whether the peer has closed its end.
    """

    at_end: bool

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected stream socket."""
        sock.setblocking(False)
        self.at_end = False
        self._socket = sock
        self._reader = MessageReader()
        self._unsent: list[tuple[bytes, tuple[int, ...]]] = []

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    @property
    def is_amid_message(self) -> bool:
        """Whether a message has begun to come and is not complete."""
        return self._reader.is_amid_message

    def close(self) -> None:
        """Close the socket, and the descriptors of a message that was not complete."""
        for fd in self._reader.take_fds():
            foreign_fds.close(fd)
        self._socket.close()

    def receive(self) -> Message | None:
        """The next whole message, or None while there is none; sets `at_end` when there will be no more.

        Raises:
            RemoteProtocolError: what came is not a message.
            OSError: this process can have no more file descriptors.
        """
        while (message := self._reader.next_message()) is None:
            try:
                data, fds, flags = receive_some(self._socket, self._reader.wanted_bytes)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                data, fds, flags = b"", [], 0
            self._reader.receive(data, fds)
            check_received(fds, flags)
            if not data:
                self.at_end = True
                return None
        return message

    @property
    def has_more(self) -> bool:
        """Whether something has come that is not received."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing, or nobody: `receive` will tell
            return False

    def resume(self) -> None:
        """Go on where another process was on this connection, if one was."""

    def changed(self) -> None:
        """Something else than by a message has changed what a successor of this process must know."""

    def done(self, answer: Message | None) -> bool:
        """The message that was received last is acted on; send the answer to it, if any, as `send` does."""
        return True if answer is None else self.send(answer)

    def send(self, message: Message) -> bool:
        """Send a message, or as much as the peer takes now; whether all went.

        Its descriptors must stay open until then.

        Raises:
            PeerGoneError: the peer has closed its end.
        """
        self._unsent.append((encode(message), message.fds))
        return self.flush()

    def flush(self) -> bool:
        """Go on with what `send` left; whether nothing is left now.

        Raises:
            PeerGoneError: the peer has closed its end.
        """
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                sent = send_some(self._socket, data, fds)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError) as error:
                self.at_end = True
                raise PeerGoneError("the peer closed the connection") from error
            self._unsent[0] = (data[sent:], ())
            if sent == len(data):
                self._unsent.pop(0)
        return True


def receive_some(sock: socket.socket, size_bytes: int, how: int = 0) -> tuple[bytes, list[int], int]:
    """Bytes, descriptors and flags, by a socket that does not block; `how` may be MSG_PEEK.

    The standard library's recv_fds of Python 3.11 drops the flags that it is given.
    """
    room = socket.CMSG_SPACE((FDS_MAX + 1) * _FD_BYTES)
    data, ancillary, flags, _ = sock.recvmsg(size_bytes, room, socket.MSG_CMSG_CLOEXEC | how)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % _FD_BYTES])
    return data, list(fds), flags


def check_received(fds: Sequence[int], flags: int) -> None:
    """Were all descriptors received that came.

    Raises:
        OSError: this process can have no more.
        RemoteProtocolError: there were too many.
    """
    if flags & socket.MSG_CTRUNC and len(fds) <= FDS_MAX:
        raise OSError(errno.EMFILE, "this process has no room for a message's file descriptors (ulimit -n)")
    if flags & socket.MSG_CTRUNC:
        raise RemoteProtocolError("more file descriptors came with a message than there is room for")


def send_some(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send bytes, and descriptors beside them; how many bytes have gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


class FrontendChannel:
    """A front-end that waits for the reply to each request.

    Attributes:
        frontend: the state machine.
    """

    frontend: VhostUserFrontend

    def __init__(self, sock: socket.socket, *, timeout_s: float = 10.0) -> None:
        """Take over a connected socket; a reply that takes longer than the timeout is an error."""
        self.frontend = VhostUserFrontend()
        self._connection = Connection(sock)
        self._timeout_s = timeout_s
        self._owns = False

    def fileno(self) -> int:
        """For selectors: readable when the back-end is gone."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, request: Request, payload: bytes = b"", fds: tuple[int, ...] = ()) -> bytes:
        """Make one request; the reply's payload, empty if it has none.

        Raises:
            PeerGoneError: the back-end closed the connection, or did not answer in time.
            RefusedError: the back-end could not do it.
            RemoteProtocolError: the back-end broke a rule.
            LocalProtocolError: the request needs what was not negotiated.
        """
        message = self._exchange(request, payload, fds)
        if message is None:
            return b""
        for fd in message.fds:  # nobody asked for them
            foreign_fds.close(fd)
        return self.frontend.take(message)

    def _exchange(self, request: Request, payload: bytes, fds: tuple[int, ...]) -> Message | None:
        """Send a request; the reply, if one is due."""
        message = self.frontend.request(request, payload, fds)
        if not self._connection.send(message):
            self._wait(select.POLLOUT, request)
            if not self._connection.flush():
                raise PeerGoneError(f"the back-end takes no more requests ({request.name})")
        return self._reply(request) if self.frontend.awaits_reply else None

    def _reply(self, request: Request) -> Message:
        while (message := self._connection.receive()) is None:
            if self._connection.at_end:
                raise PeerGoneError(f"the back-end closed the connection at {request.name}")
            self._wait(select.POLLIN, request)
        return message

    def _wait(self, event: int, request: Request) -> None:
        poller = select.poll()
        poller.register(self._connection.fileno(), event)
        if not poller.poll(self._timeout_s * 1000):
            raise PeerGoneError(f"the back-end did not answer {request.name} within {self._timeout_s:g} s")

    def negotiate(self, wanted: int) -> int:
        """Own the device, agree on features and protocol features; the features that both sides have.

        The bit for protocol features is accepted where it is offered, so that queues can be enabled.
        """
        if not self._owns:  # a second one would begin another session
            self.call(Request.SET_OWNER)
            self._owns = True
        offered = decode_u64(self.call(Request.GET_FEATURES))
        features = offered & (wanted | F_PROTOCOL_FEATURES)
        if offered & F_PROTOCOL_FEATURES:
            both = ProtocolFeature(decode_u64(self.call(Request.GET_PROTOCOL_FEATURES))) & PROTOCOL_FEATURES
            self.call(Request.SET_PROTOCOL_FEATURES, U64.pack(both))
            self.frontend.protocol_features = both
        self.call(Request.SET_FEATURES, U64.pack(features))
        return features & wanted

    def set_mem_table(self, regions: Sequence[MemoryRegion], fds: Sequence[int]) -> None:
        """Share the guest's memory: one descriptor a region."""
        self.call(Request.SET_MEM_TABLE, encode_mem_table(regions), tuple(fds))

    def queue_count(self, wanted: int) -> int:
        """This many queues, or as many as there are if those are fewer and the back-end tells (MQ)."""
        if not self.frontend.protocol_features & ProtocolFeature.MQ:
            return wanted
        return min(wanted, decode_u64(self.call(Request.GET_QUEUE_NUM)))

    def get_inflight(self, queue_count: int, queue_size: int) -> tuple[Inflight, int] | None:
        """Have the back-end make memory for what is in flight: its description and descriptor, for the caller to keep.

        None where the back-end keeps no track (INFLIGHT_SHMFD).

        Raises:
            RemoteProtocolError: what came is no such memory.
        """
        if not self.frontend.protocol_features & ProtocolFeature.INFLIGHT_SHMFD:
            return None
        asked = Inflight(0, 0, queue_count, queue_size)
        message = self._exchange(Request.GET_INFLIGHT_FD, encode_inflight(asked), ())
        assert message is not None, "it is a request with a reply"
        try:
            inflight = decode_inflight(self.frontend.take(message))
            if len(message.fds) != 1 or inflight.mmap_size_bytes == 0:
                raise RemoteProtocolError("GET_INFLIGHT_FD was answered without memory")
        except RemoteProtocolError:
            for fd in message.fds:
                foreign_fds.close(fd)
            raise
        return inflight, message.fds[0]

    def set_inflight(self, inflight: Inflight, fd: int) -> None:
        """Say where what is in flight is tracked, before any queue is started."""
        self.call(Request.SET_INFLIGHT_FD, encode_inflight(inflight), (fd,))

    def start_queue(self, address: VringAddress, size: int, base: int, kick_fd: int, call_fd: int) -> None:
        """Say where a queue is, and start it."""
        index = address.queue
        self.call(Request.SET_VRING_NUM, VRING_STATE.pack(index, size))
        self.call(Request.SET_VRING_BASE, VRING_STATE.pack(index, base))
        self.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address))
        self.call(Request.SET_VRING_CALL, U64.pack(index), (call_fd,))
        self.call(Request.SET_VRING_KICK, U64.pack(index), (kick_fd,))
        if self.frontend.protocol_features:
            self.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, 1))

    def stop_queue(self, index: int) -> int:
        """Stop a queue; the available index that the back-end would take next."""
        return decode_vring_state(self.call(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0)))[1]

    def set_status(self, status: int) -> None:
        """Set the device status, where the back-end has one (STATUS)."""
        if self.frontend.protocol_features & ProtocolFeature.STATUS:
            self.call(Request.SET_STATUS, U64.pack(status))

    def get_status(self) -> int:
        """The device status; 0 where the back-end has none (STATUS)."""
        if self.frontend.protocol_features & ProtocolFeature.STATUS:
            return decode_u64(self.call(Request.GET_STATUS))
        return 0

    def get_config(self, offset: int, size: int) -> bytes:
        """Read the configuration space."""
        payload = encode_config(ConfigSpace(offset, size, 0, bytes(size)))
        return decode_config(self.call(Request.GET_CONFIG, payload)).data

    def set_config(self, offset: int, data: bytes) -> None:
        """Write to the configuration space; it is written before a kick from now on can be seen."""
        self.call(Request.SET_CONFIG, encode_config(ConfigSpace(offset, len(data), 0, data)))
        if not self.frontend.protocol_features & ProtocolFeature.REPLY_ACK:
            self.call(Request.GET_FEATURES)  # whose reply comes after that
