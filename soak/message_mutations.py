"""What a hostile front-end sends: the messages of an honest one, a few of them changed, moved, repeated or left out."""

import contextlib
import json
import random
import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pagetide.virtio.balloon import Queue
from pagetide.virtio.vhost_user.messages import (
    FLAG_NEED_REPLY,
    Message,
    MessageReader,
    RemoteProtocolError,
    Request,
    encode,
)
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    decode_inflight,
    decode_mem_table,
    decode_single_region,
    encode_config,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.host.guest.test_hostile_messages import CANARY_PAGES, FEATURES, GPA, RIGHT_FDS, USER, WHOLE
from tests.host.guest_ring import PAGE

Act = Literal["send", "ask", "cut", "fill"]


class Step(NamedTuple):
    """One thing that the hostile side does.

    Attributes:
        data: what is sent.
        kinds: of the descriptors that go with it.
        act: `send` to the daemon as a front-end, `ask` at the control socket, `cut` the memory file short, or `fill`
            all eventfds and make them block.
    """

    data: bytes
    kinds: list[str]
    act: Act = "send"


_RIGHT_FDS = {**RIGHT_FDS, Request.SET_INFLIGHT_FD: ["ram"]}
_KINDS = ("ram", "ram", "read-only", "eventfd", "eventfd", "full", "pipe", "null", "socket", "talking", "folder")
HOSTILE = "two"
"""The name of the guest whose messages these are."""
_TOP = (1 << 64) - PAGE
_REGIONS = (
    *(WHOLE, WHOLE, WHOLE._replace(size_bytes=8 * PAGE), WHOLE._replace(size_bytes=49 * PAGE)),
    WHOLE._replace(gpa=GPA + 8 * PAGE, user_address=USER + 8 * PAGE, size_bytes=8 * PAGE),
    *(WHOLE._replace(user_address=USER + 4 * PAGE), WHOLE._replace(gpa=_TOP), WHOLE._replace(user_address=_TOP)),
    *(WHOLE._replace(mmap_offset_bytes=_TOP), WHOLE._replace(size_bytes=0), WHOLE._replace(gpa=GPA + 512)),
    *(WHOLE._replace(size_bytes=1 << 46), WHOLE._replace(mmap_offset_bytes=CANARY_PAGES * PAGE + 64)),
    *(WHOLE._replace(size_bytes=8 * PAGE + 100), WHOLE._replace(gpa=GPA + (64 << 20), user_address=USER + (64 << 20))),
)
_PLACES = (0, 0x200, 0x400, 2 * PAGE, 48 * PAGE - 16, 48 * PAGE, 8 * PAGE - 16, 8, -16, 1 << 62)
_SIZES = (0, 1, 2, 3, 8, 64, 32768, 65536, 0xFFFF_FFFF)
_INFLIGHT = struct.Struct("<QQHH")
_HEADER_BYTES = 12
_VALUES = (0, 1, 2, 7, 0xF, FEATURES, int(PROTOCOL_FEATURES), FEATURES | 1 << 55, (1 << 64) - 1)


def message(request: int, payload: bytes = b"", flags: int = FLAG_NEED_REPLY) -> Step:
    """One message, with the descriptors that a right one has."""
    known = request in set(Request)
    return Step(encode(Message(request, flags, payload)), list(_RIGHT_FDS.get(Request(request), []) if known else []))


def start_of(queue: int) -> list[Step]:
    """What starts a queue."""
    address = VRING_ADDRESS.pack(queue, 0, USER, USER + 0x400, USER + 0x200, 0)
    return [
        message(Request.SET_VRING_NUM, VRING_STATE.pack(queue, 8)),
        message(Request.SET_VRING_BASE, VRING_STATE.pack(queue, 0)),
        message(Request.SET_VRING_ADDR, address),
        message(Request.SET_VRING_ERR, U64.pack(queue)),
        message(Request.SET_VRING_CALL, U64.pack(queue)),
        message(Request.SET_VRING_KICK, U64.pack(queue)),
        message(Request.SET_VRING_ENABLE, VRING_STATE.pack(queue, 1)),
    ]


def right_script(rng: random.Random) -> list[Step]:
    """What an honest front-end says from its first message to the start of a queue."""
    queue = rng.randrange(len(Queue))
    return [
        message(Request.GET_FEATURES, flags=0),
        message(Request.SET_PROTOCOL_FEATURES, U64.pack(int(PROTOCOL_FEATURES)), 0),
        message(Request.SET_OWNER),
        message(Request.SET_FEATURES, U64.pack(FEATURES)),
        message(Request.SET_BACKEND_REQ_FD),
        message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE])),
        *([message(Request.GET_INFLIGHT_FD, _INFLIGHT.pack(0, 0, 5, 8))] if rng.random() < 0.3 else []),
        *start_of(queue),
        *[_any(rng) for _ in range(rng.randrange(3))],
        message(Request.GET_VRING_BASE, VRING_STATE.pack(queue, 0)),
        *start_of(queue),
    ]


def shares_canary(script: Sequence[Step]) -> bool:
    """Whether what is sent shares memory below the canaries' end: the daemon may then write there."""
    reader = MessageReader()
    reader.receive(b"".join(step.data for step in script if step.act == "send"))
    with contextlib.suppress(RemoteProtocolError):  # nothing that comes after is listened to
        while (sent := reader.next_message()) is not None:
            if any(offset_bytes < CANARY_PAGES * PAGE for offset_bytes in _offsets_bytes(sent)):
                return True
    return False


def _offsets_bytes(sent: Message) -> list[int]:
    """Where in its files a message shares memory."""
    with contextlib.suppress(RemoteProtocolError):
        match sent.request:
            case Request.SET_MEM_TABLE:
                return [region.mmap_offset_bytes for region in decode_mem_table(sent.payload)]
            case Request.ADD_MEM_REG:
                return [decode_single_region(sent.payload).mmap_offset_bytes]
            case Request.SET_INFLIGHT_FD:
                return [decode_inflight(sent.payload).mmap_offset_bytes]
    return []


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
            sizes = (
                rng.choice((0, 1, 4096, 4096, 1 << 20, _TOP)),
                rng.choice((0, CANARY_PAGES * PAGE, CANARY_PAGES * PAGE, _TOP)),
            )
            return _INFLIGHT.pack(*sizes, rng.choice((0, 1, 5, 5, 65535)), rng.choice((0, 8, 8, 64, 65535)))
        case _:
            return rng.choice((b"", U64.pack(rng.choice(_VALUES))))


def _any(rng: random.Random) -> Step:
    request = rng.choice(list(Request)) if rng.random() < 0.9 else rng.randrange(64)
    return message(request, _payload(rng, request), rng.choice((0, FLAG_NEED_REPLY, FLAG_NEED_REPLY)))


def _mutated(rng: random.Random, script: list[Step]) -> list[Step]:
    """With one step left out, repeated, moved to the end, changed, or put in."""
    at = rng.randrange(len(script))
    before, step, after = script[:at], script[at], script[at + 1 :]
    match rng.choice("drscccccciiiii"):
        case "d":
            return [*before, *after] or script
        case "r":
            return [*before, step, step, *after]
        case "s":
            return [*before, *after, step]
        case "c":
            return [*before, _changed(rng, step), *after]
        case _:
            return [*before, _new(rng), step, *after]


def _changed(rng: random.Random, step: Step) -> Step:
    """With other values, descriptors or header, a bit turned over, of another length, or cut off."""
    data = step.data
    (request,) = struct.unpack_from("<I", data.ljust(4, b"\0"))
    match rng.choice("pppfffkkhtww"):
        case "p":
            return Step(message(request, _payload(rng, request)).data, step.kinds)
        case "f":
            return step._replace(kinds=[rng.choice(_KINDS) for _ in range(rng.choice((0, 1, 1, 2, 3, 9)))])
        case "k":
            changed = bytearray(data)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return step._replace(data=bytes(changed))
        case "h":
            size = rng.choice((0, 1, 8, 4096, 1 << 20, 0xFFFF_FFFF))
            return Step(struct.pack("<III", request, rng.choice((0, 1, 2, 5, 9)), size), [])
        case "w":
            payload = data[_HEADER_BYTES:]
            payload = payload[: rng.randrange(len(payload) + 1)] + rng.randbytes(rng.choice((0, 1, 4, 8, 40)))
            return step._replace(data=message(request, payload).data)
        case _:
            return step._replace(data=data[: rng.randrange(1, len(data) + 1)])


def _new(rng: random.Random) -> Step:
    """One that the honest front-end would not have made there."""
    match rng.choice("iiiigcfaaa"):
        case "i":
            return _any(rng)
        case "g":
            return Step(rng.randbytes(rng.randrange(1, 40)), [])
        case "c":
            return Step(b"\0", [], "cut")
        case "f":
            return Step(b"\0", [], "fill")
        case _:
            return Step(_question(rng), [], "ask")


_COMMANDS = ("show", "set", "set", "pause", "resume", "inhibit", "uninhibit", "hint", "hint", "add", "remove", "none")
_TARGETS = (None, 0, 1, PAGE, 40 * PAGE, 1 << 40, 1 << 62, 1 << 63, -1)


def _question(rng: random.Random) -> bytes:
    """A line for the control socket: most of it about the hostile guest, nothing that would hold up another."""
    if rng.random() < 0.1:
        return rng.choice(
            (b"{}", b"nonsense", b"\xff\xfe", b"x" * 5000, b'{"command": 7}', b'{"command": "set", "guest": "two"}')
        )
    name = rng.choice((HOSTILE, HOSTILE, HOSTILE, "nobody", "..", "x" * 80, "new", None))
    command = rng.choice(_COMMANDS)
    target = {"target_bytes": rng.choice(_TARGETS)} if command == "set" else {}
    return json.dumps({"command": command, "guest": name, **target}).encode()


def hostile_script(rng: random.Random) -> list[Step]:
    """A right script with up to eight changes."""
    script = right_script(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4, 8))):
        script = _mutated(rng, script)
    return script
