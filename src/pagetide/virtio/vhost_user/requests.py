"""What single requests say: those about queues, and those whose meaning is all in the message."""

from collections.abc import Callable

from pagetide.virtio.vhost_user.events import Event, InflightAsked, MemoryRegionAdded, MemoryTableSet
from pagetide.virtio.vhost_user.messages import Message, RemoteProtocolError, Request
from pagetide.virtio.vhost_user.payloads import (
    INDEX_MASK,
    NO_FD,
    decode_config,
    decode_inflight,
    decode_mem_table,
    decode_single_region,
    decode_u64,
    decode_vring_address,
    decode_vring_state,
)
from pagetide.virtio.vhost_user.vrings import Vrings

_Events = tuple[Event, ...]


def _vring_fd(message: Message) -> tuple[int, int]:
    """The queue that a message names, and the descriptor that came with it or -1."""
    value = decode_u64(message.payload)
    if bool(value & NO_FD) == bool(message.fds):
        name = Request(message.request).name
        raise RemoteProtocolError(f"{name} with {len(message.fds)} descriptors says {value:#x}")
    return value & INDEX_MASK, message.fds[0] if message.fds else -1


def _nothing(_: Message) -> _Events:
    """The message asks for a reply, or for nothing at all."""
    return ()


def _mem_table(message: Message) -> _Events:
    regions = decode_mem_table(message.payload)
    if len(regions) != len(message.fds):
        raise RemoteProtocolError(f"SET_MEM_TABLE names {len(regions)} regions with {len(message.fds)} descriptors")
    return (MemoryTableSet(regions, message.fds),)


def _added_region(message: Message) -> _Events:
    region = decode_single_region(message.payload)
    if len(message.fds) != 1:
        raise RemoteProtocolError("ADD_MEM_REG without its file descriptor")
    return (MemoryRegionAdded(region, message.fds[0]),)


def _asked_inflight(message: Message) -> _Events:
    asked = decode_inflight(message.payload)
    return (InflightAsked(asked.queue_count, asked.queue_size),)


def _read_config(message: Message) -> _Events:
    decode_config(message.payload)
    return ()


VRING_REQUESTS: dict[Request, Callable[[Vrings, Message], _Events]] = {
    Request.SET_VRING_NUM: lambda vrings, message: vrings.set_size(*decode_vring_state(message.payload)),
    Request.SET_VRING_ADDR: lambda vrings, message: vrings.set_address(decode_vring_address(message.payload)),
    Request.SET_VRING_BASE: lambda vrings, message: vrings.set_base(*decode_vring_state(message.payload)),
    Request.GET_VRING_BASE: lambda vrings, message: vrings.stop(decode_vring_state(message.payload)[0]),
    Request.SET_VRING_KICK: lambda vrings, message: vrings.set_kick_fd(*_vring_fd(message)),
    Request.SET_VRING_CALL: lambda vrings, message: vrings.set_call_fd(*_vring_fd(message)),
    Request.SET_VRING_ERR: lambda vrings, message: vrings.set_err_fd(*_vring_fd(message)),
    Request.SET_VRING_ENABLE: lambda vrings, message: vrings.enable(*decode_vring_state(message.payload)),
}
"""What changes a queue."""

STATELESS: dict[Request, Callable[[Message], _Events]] = {
    Request.GET_FEATURES: _nothing,
    Request.GET_PROTOCOL_FEATURES: _nothing,
    Request.GET_QUEUE_NUM: _nothing,
    Request.GET_MAX_MEM_SLOTS: _nothing,
    Request.GET_STATUS: _nothing,
    Request.GET_CONFIG: _read_config,
    Request.GET_INFLIGHT_FD: _asked_inflight,
    Request.SET_MEM_TABLE: _mem_table,
    Request.ADD_MEM_REG: _added_region,
}
"""What means the same whatever came before it."""
