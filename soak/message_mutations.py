"""What a hostile front-end sends: the messages of an honest one, a few of them changed, moved, repeated or left out."""

import os
import random
import socket
import struct

from pagetide.virtio.balloon import Queue
from pagetide.virtio.vhost_user.messages import FLAG_NEED_REPLY, Message, Request, encode
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    encode_config,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.host.guest.test_hostile_messages import FEATURES, GPA, RIGHT_FDS, USER, WHOLE
from tests.host.guest_ring import PAGE

Step = tuple[bytes, list[str]]
"""Bytes, and the kinds of descriptors that go with them."""

_KINDS = ("ram", "ram", "eventfd", "eventfd", "pipe", "null", "socket", "folder")
_TOP = (1 << 64) - PAGE
_REGIONS = (
    *(WHOLE, WHOLE, WHOLE._replace(size_bytes=8 * PAGE), WHOLE._replace(size_bytes=49 * PAGE)),
    WHOLE._replace(gpa=GPA + 8 * PAGE, user_address=USER + 8 * PAGE, size_bytes=8 * PAGE),
    *(WHOLE._replace(user_address=USER + 4 * PAGE), WHOLE._replace(gpa=_TOP), WHOLE._replace(user_address=_TOP)),
    *(WHOLE._replace(mmap_offset_bytes=_TOP), WHOLE._replace(size_bytes=0), WHOLE._replace(gpa=GPA + 512)),
)
_PLACES = (0, 0x200, 0x400, 2 * PAGE, 48 * PAGE - 16, 48 * PAGE, 8 * PAGE - 16, 8, -16, 1 << 62)
_SIZES = (0, 1, 2, 3, 8, 64, 32768, 65536, 0xFFFF_FFFF)
_VALUES = (0, 1, 2, 7, 0xF, FEATURES, int(PROTOCOL_FEATURES), FEATURES | 1 << 55, (1 << 64) - 1)


def _message(request: int, payload: bytes = b"", flags: int = FLAG_NEED_REPLY) -> Step:
    known = request in set(Request)
    return encode(Message(request, flags, payload)), list(RIGHT_FDS.get(Request(request), []) if known else [])


def _start(queue: int) -> list[Step]:
    address = VRING_ADDRESS.pack(queue, 0, USER, USER + 0x400, USER + 0x200, 0)
    return [
        _message(Request.SET_VRING_NUM, VRING_STATE.pack(queue, 8)),
        _message(Request.SET_VRING_BASE, VRING_STATE.pack(queue, 0)),
        _message(Request.SET_VRING_ADDR, address),
        _message(Request.SET_VRING_ERR, U64.pack(queue)),
        _message(Request.SET_VRING_CALL, U64.pack(queue)),
        _message(Request.SET_VRING_KICK, U64.pack(queue)),
        _message(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue, 1)),
    ]


def right_script(rng: random.Random) -> list[Step]:
    """What an honest front-end says from its first message to the start of a queue."""
    queue = rng.randrange(len(Queue))
    return [
        _message(Request.GET_FEATURES, flags=0),
        _message(Request.SET_PROTOCOL_FEATURES, U64.pack(int(PROTOCOL_FEATURES)), 0),
        _message(Request.SET_OWNER),
        _message(Request.SET_FEATURES, U64.pack(FEATURES)),
        _message(Request.SET_BACKEND_REQ_FD),
        _message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE])),
        *_start(queue),
        *[_any(rng) for _ in range(rng.randrange(3))],
        _message(Request.GET_VRING_BASE, VRING_STATE.pack(queue, 0)),
        *_start(queue),
    ]


def _payload(rng: random.Random, request: int) -> bytes:  # noqa: PLR0911 - a form each
    """One of the form that this request has, with any values."""
    queue = rng.randrange(7)
    match request:
        case Request.SET_VRING_NUM | Request.SET_VRING_BASE | Request.GET_VRING_BASE | Request.SET_VRING_ENABLE:
            return VRING_STATE.pack(queue, rng.choice(_SIZES))
        case Request.SET_VRING_KICK | Request.SET_VRING_CALL | Request.SET_VRING_ERR:
            return U64.pack(queue | rng.choice((0, 0, NO_FD, 1 << 9)))
        case Request.SET_VRING_ADDR:
            places = [USER + rng.choice(_PLACES) & (1 << 64) - 1 for _ in range(3)]
            return VRING_ADDRESS.pack(queue, rng.choice((0, 0, 1, 2)), *places, 0)
        case Request.SET_MEM_TABLE:
            return encode_mem_table([rng.choice(_REGIONS) for _ in range(rng.choice((0, 1, 1, 2, 3)))])
        case Request.ADD_MEM_REG | Request.REM_MEM_REG:
            return encode_single_region(rng.choice(_REGIONS))
        case Request.GET_CONFIG | Request.SET_CONFIG:
            offset, size = rng.randrange(24), rng.randrange(24)
            return encode_config(ConfigSpace(offset, size, 0, bytes(size)))
        case Request.GET_INFLIGHT_FD | Request.SET_INFLIGHT_FD:
            sizes = rng.choice((0, 1, 4096, 1 << 20, _TOP)), rng.choice((0, 0, 4096, _TOP))
            return struct.pack("<QQHH", *sizes, rng.choice((0, 1, 5, 65535)), rng.choice((0, 8, 64, 65535)))
        case _:
            return rng.choice((b"", U64.pack(rng.choice(_VALUES))))


def _any(rng: random.Random) -> Step:
    request = rng.choice(list(Request)) if rng.random() < 0.9 else rng.randrange(64)
    return _message(request, _payload(rng, request), rng.choice((0, FLAG_NEED_REPLY, FLAG_NEED_REPLY)))


def _mutated(rng: random.Random, script: list[Step]) -> list[Step]:  # noqa: PLR0911 - a change each
    at = rng.randrange(len(script))
    data, kinds = script[at]
    (request,) = struct.unpack_from("<I", data.ljust(4, b"\0"))
    before, after = script[:at], script[at + 1 :]
    match rng.choice("ddrrssiiiippppfffkkhtg"):
        case "d":
            return before + after if len(script) > 1 else script
        case "r":
            return [*before, script[at], script[at], *after]
        case "s":
            return [*before, *after, script[at]]
        case "i":
            return [*before, _any(rng), *script[at:]]
        case "p":
            return [*before, (_message(request, _payload(rng, request))[0], kinds), *after]
        case "f":
            return [*before, (data, [rng.choice(_KINDS) for _ in range(rng.choice((0, 1, 1, 2, 3, 9)))]), *after]
        case "k":
            changed = bytearray(data)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return [*before, (bytes(changed), kinds), *after]
        case "h":
            size = rng.choice((0, 1, 8, 4096, 1 << 20, 0xFFFF_FFFF))
            return [*before, (struct.pack("<III", request, rng.choice((0, 1, 2, 5, 9)), size), []), *after]
        case "t":
            return [*before, (data[: rng.randrange(1, len(data) + 1)], kinds), *after]
        case _:
            return [*before, (rng.randbytes(rng.randrange(1, 40)), kinds), *after]


def hostile_script(rng: random.Random) -> list[Step]:
    """A right script with up to eight changes."""
    script = right_script(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4, 8))):
        script = _mutated(rng, script)
    return script


def open_fd(kind: str, ram_fd: int) -> int:
    """A descriptor of a kind, for a message."""
    match kind:
        case "ram":
            return os.dup(ram_fd)
        case "eventfd":
            return os.eventfd(1, os.EFD_CLOEXEC)
        case "pipe":
            read_fd, write_fd = os.pipe()
            os.close(read_fd)
            return write_fd
        case "socket":
            ours, theirs = socket.socketpair()
            ours.close()
            return theirs.detach()
        case "folder":
            return os.open("/", os.O_RDONLY)
        case _:
            return os.open("/dev/null", os.O_RDWR)
