"""What is in the payloads of vhost-user's messages, as bytes (QEMU's docs/interop/vhost-user.rst, "the text" below).

A `decode_` function takes a payload of the peer's, and says what is wrong with it.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from pagetide.virtio.vhost_user.messages import FDS_MAX, RemoteProtocolError

NO_FD = 0x100
"""Bit of a SET_VRING_KICK, _CALL or _ERR payload that says that no descriptor comes with it."""

INDEX_MASK = 0xFF
"""The bits of that payload that hold the queue's index."""

CONFIG_BYTES_MAX = 256
"""The largest device configuration (the text, "Virtio device config space")."""

U64 = struct.Struct("<Q")
VRING_STATE = struct.Struct("<2I")
VRING_ADDRESS = struct.Struct("<2I4Q")
REGION = struct.Struct("<4Q")
_COUNT_PADDING = struct.Struct("<2I")
_PADDING = struct.Struct("<Q")
CONFIG_HEADER = struct.Struct("<3I")
INFLIGHT = struct.Struct("<2Q2H4x")
_INFLIGHT_PADDING_BYTES = 4


class VringAddress(NamedTuple):
    """Where a queue is, by user addresses (the text, "A vring address description")."""

    queue: int
    flags: int
    desc: int
    used: int
    avail: int
    log: int = 0


class MemoryRegion(NamedTuple):
    """A region of guest memory (the text, "Memory region description")."""

    gpa: int
    size_bytes: int
    user_address: int
    mmap_offset_bytes: int


class ConfigSpace(NamedTuple):
    """A part of the device's configuration (the text, "Virtio device config space")."""

    offset: int
    size: int
    flags: int
    data: bytes


class Inflight(NamedTuple):
    """The shared buffer for what is in flight (the text, "Inflight description")."""

    mmap_size_bytes: int
    mmap_offset_bytes: int
    queue_count: int
    queue_size: int


def encode_mem_table(regions: Sequence[MemoryRegion]) -> bytes:
    """Payload of SET_MEM_TABLE."""
    return _COUNT_PADDING.pack(len(regions), 0) + b"".join(REGION.pack(*region) for region in regions)


def decode_mem_table(payload: bytes) -> tuple[MemoryRegion, ...]:
    """Read a SET_MEM_TABLE payload, which may be longer than its regions need: Linux's UML sends its whole union.

    Raises:
        RemoteProtocolError: the payload is too short for the number of regions that it gives, or that is over FDS_MAX.
    """
    count, _ = _unpack(_COUNT_PADDING, payload[: _COUNT_PADDING.size], "SET_MEM_TABLE")
    if count > FDS_MAX or len(payload) < _COUNT_PADDING.size + count * REGION.size:
        raise RemoteProtocolError(f"SET_MEM_TABLE names {count} memory regions in {len(payload)} bytes")
    end = _COUNT_PADDING.size + count * REGION.size
    return tuple(MemoryRegion(*fields) for fields in REGION.iter_unpack(payload[_COUNT_PADDING.size : end]))


def encode_single_region(region: MemoryRegion) -> bytes:
    """Payload of ADD_MEM_REG and REM_MEM_REG."""
    return _PADDING.pack(0) + REGION.pack(*region)


def decode_single_region(payload: bytes) -> MemoryRegion:
    """Read an ADD_MEM_REG or REM_MEM_REG payload.

    Raises:
        RemoteProtocolError: it has the wrong size.
    """
    if len(payload) != _PADDING.size + REGION.size:
        raise RemoteProtocolError(f"a single memory region of {len(payload)} bytes")
    return MemoryRegion(*REGION.unpack(payload[_PADDING.size :]))


def encode_config(config: ConfigSpace) -> bytes:
    """Payload of GET_CONFIG and SET_CONFIG."""
    return CONFIG_HEADER.pack(config.offset, config.size, config.flags) + config.data


def decode_config(payload: bytes) -> ConfigSpace:
    """Read a GET_CONFIG or SET_CONFIG payload.

    Raises:
        RemoteProtocolError: its size is not its own, or more than CONFIG_BYTES_MAX. It may be anywhere: a driver
            chooses the place, and a front-end may pass that on.
    """
    offset, size, flags = _unpack(CONFIG_HEADER, payload[: CONFIG_HEADER.size], "a configuration access")
    data = payload[CONFIG_HEADER.size :]
    if size > CONFIG_BYTES_MAX or len(data) != size:
        raise RemoteProtocolError(f"a configuration access to {size} bytes at {offset} that carries {len(data)}")
    return ConfigSpace(offset, size, flags, data)


def decode_u64(payload: bytes) -> int:
    """Read a payload of one 64-bit number.

    Raises:
        RemoteProtocolError: it has the wrong size.
    """
    (value,) = _unpack(U64, payload, "a 64-bit payload")
    return value


def decode_vring_state(payload: bytes) -> tuple[int, int]:
    """Read a queue's index and a number.

    Raises:
        RemoteProtocolError: it has the wrong size.
    """
    index, number = _unpack(VRING_STATE, payload, "a queue's state")
    return index, number


def decode_vring_address(payload: bytes) -> VringAddress:
    """Read a SET_VRING_ADDR payload.

    Raises:
        RemoteProtocolError: it has the wrong size.
    """
    return VringAddress(*_unpack(VRING_ADDRESS, payload, "a queue's addresses"))


def encode_inflight(inflight: Inflight) -> bytes:
    """Payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD."""
    return INFLIGHT.pack(*inflight)


def decode_inflight(payload: bytes) -> Inflight:
    """Read a GET_INFLIGHT_FD or SET_INFLIGHT_FD payload, padded to whole words or not.

    Raises:
        RemoteProtocolError: it has the wrong size.
    """
    padding = bytes(_INFLIGHT_PADDING_BYTES if len(payload) == INFLIGHT.size - _INFLIGHT_PADDING_BYTES else 0)
    return Inflight(*_unpack(INFLIGHT, payload + padding, "an in-flight description"))


def _unpack(layout: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise RemoteProtocolError(f"{what} of {len(payload)} bytes, not {layout.size}")
    return layout.unpack(payload)
