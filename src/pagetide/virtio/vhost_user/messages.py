"""The messages of vhost-user, as bytes and file descriptors (QEMU's docs/interop/vhost-user.rst, "the text" below).

A message is a header of three little-endian 32-bit words (request, flags, payload size), then the payload;
descriptors travel beside it. `encode` makes one; a `MessageReader` takes bytes and descriptors as they come and gives
whole messages. What is in a payload is for payloads.py. Nothing here does I/O, and nothing here closes a
descriptor: each belongs to the message that it came with.
"""

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple


class RemoteProtocolError(Exception):
    """The peer broke a rule of the text; the connection is of no more use."""


class LocalProtocolError(Exception):
    """We were about to break a rule of the text."""


class Request(enum.IntEnum):
    """Requests of the front-end (the text, "Front-end message types")."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


class BackendRequest(enum.IntEnum):
    """Requests of the back-end, on the channel of SET_BACKEND_REQ_FD (the text, "Back-end message types")."""

    CONFIG_CHANGE_MSG = 2


class ProtocolFeature(enum.IntFlag, boundary=enum.KEEP):
    """Protocol feature bits, as masks (the text, "Protocol features")."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16


F_PROTOCOL_FEATURES = 1 << 30
"""The feature bit by which a back-end says that it has protocol features (VHOST_USER_F_PROTOCOL_FEATURES)."""

VERSION = 0x1
_VERSION_MASK = 0x3
FLAG_REPLY = 0x4
FLAG_NEED_REPLY = 0x8

PAYLOAD_BYTES_MAX = 4096
"""The largest payload taken. The text gives no bound; the largest that it defines is a table of 32 regions."""

FDS_MAX = 8
"""Most descriptors with one message (the text, "Communication": at most 8 regions in SET_MEM_TABLE)."""

_HEADER = struct.Struct("<3I")
HEADER_BYTES = _HEADER.size


class Message(NamedTuple):
    """One message.

    Attributes:
        request: its number; may be one that nobody knows.
        flags: FLAG_REPLY and FLAG_NEED_REPLY; the version is not kept.
        payload: its bytes.
        fds: the descriptors that came with it, owned by whoever holds the message.
    """

    request: int
    flags: int = 0
    payload: bytes = b""
    fds: tuple[int, ...] = ()

    @property
    def need_reply(self) -> bool:
        """Whether the sender wants an acknowledgement (REPLY_ACK)."""
        return bool(self.flags & FLAG_NEED_REPLY)

    @property
    def is_reply(self) -> bool:
        """Whether it answers a request."""
        return bool(self.flags & FLAG_REPLY)


def encode(message: Message) -> bytes:
    """The message's bytes; its descriptors are to be sent beside them.

    Raises:
        LocalProtocolError: the payload or the number of descriptors is beyond what a peer must take.
    """
    if len(message.payload) > PAYLOAD_BYTES_MAX or len(message.fds) > FDS_MAX:
        raise LocalProtocolError(f"a message of {len(message.payload)} bytes and {len(message.fds)} descriptors")
    return _HEADER.pack(message.request, VERSION | message.flags, len(message.payload)) + message.payload


class MessageReader:
    """Puts messages together from what a stream socket gives.

    Descriptors come with a message's first bytes (sendmsg(2), SCM_RIGHTS). A socket may give the end of one message
    together with the beginning and the descriptors of the next, so whoever reads it asks for `wanted_bytes` and no
    more.
    """

    def __init__(self) -> None:
        self._data = b""
        self._fds: list[int] = []

    def receive(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Take what came."""
        self._data += data
        self._fds += fds

    @property
    def wanted_bytes(self) -> int:
        """How many bytes the header or the payload at hand still lacks."""
        if len(self._data) < HEADER_BYTES:
            return HEADER_BYTES - len(self._data)
        size_bytes: int = _HEADER.unpack_from(self._data)[2]
        return HEADER_BYTES + size_bytes - len(self._data)

    @property
    def is_amid_message(self) -> bool:
        """Whether a message has begun to come and is not complete."""
        return bool(self._data or self._fds)

    @property
    def part(self) -> tuple[bytes, list[int]]:
        """What has come of a message that is not complete: its bytes and descriptors, which stay here."""
        return self._data, self._fds

    def take_fds(self) -> list[int]:
        """The descriptors of a message that is not complete: for whoever gives up on the stream, to close them."""
        fds, self._fds = self._fds, []
        return fds

    def next_message(self) -> Message | None:
        """The next whole message, or None until more has come.

        Raises:
            RemoteProtocolError: the version is not 1, the payload larger than PAYLOAD_BYTES_MAX, or the descriptors
                more than FDS_MAX.
        """
        if len(self._fds) > FDS_MAX:
            raise RemoteProtocolError(f"{len(self._fds)} file descriptors with one message")
        if len(self._data) < HEADER_BYTES:
            return None
        request, flags, size_bytes = _HEADER.unpack_from(self._data)
        if flags & _VERSION_MASK != VERSION:
            raise RemoteProtocolError(f"message version {flags & _VERSION_MASK}, not {VERSION}")
        if size_bytes > PAYLOAD_BYTES_MAX:
            raise RemoteProtocolError(f"a payload of {size_bytes} bytes, over {PAYLOAD_BYTES_MAX}")
        end = HEADER_BYTES + size_bytes
        if len(self._data) < end:
            return None
        payload, self._data = self._data[HEADER_BYTES:end], self._data[end:]
        return Message(request, flags & ~_VERSION_MASK, payload, tuple(self.take_fds()))
