"""The driver half of a split virtqueue (virtio 1.2, 2.7).

The free list and the record of what is outstanding are private: nothing the device writes can corrupt them. An element
is placed in the descriptor table by `add_element`, seen by the device after `publish`, and its descriptors are free
again after `take_used`. All calls on one ring come from one thread at a time.
"""

import ctypes

import numpy as np
import numpy.typing as npt

from pagetide.atomics import (
    fence,
    load_i64,
    load_u16,
    load_u16_acquire,
    store_i64,
    store_u16,
    store_u16_release,
)
from pagetide.jit import kernel
from pagetide.virtio.split_ring.ring import (
    AGAIN,
    AVAIL_ENTRY_BYTES,
    AVAIL_F_NO_INTERRUPT,
    BAD_ELEMENT,
    DESC_BYTES,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    DESC_WORD,
    ELEMENT_BYTES_MAX,
    FLAGS_SHIFT,
    INDEX_MASK,
    LENGTH_MASK,
    NEXT_SHIFT,
    RING_ENTRIES,
    RING_FLAGS,
    RING_IDX,
    USED_ENTRY_BYTES,
    USED_F_NO_NOTIFY,
    USED_ID_NOT_OUTSTANDING,
    USED_ID_RANGE,
    USED_IDX,
    RingPlace,
    avail_ring_bytes,
    check_alignment,
    check_queue_size,
    checked,
    desc_table_bytes,
    need_event,
    used_ring_bytes,
)

_Words = npt.NDArray[np.int64]

# The state array.
SIZE = 0
DESC_ADDRESS = 1
AVAIL_ADDRESS = 2
USED_ADDRESS = 3
RAM_ADDRESS = 4
EVENT_IDX = 5
TABLE_DESCS = 6  # descriptors in each indirect table; 0: elements are chained
TABLES_GPA = 7
FREE_HEAD = 8
FREE_COUNT = 9
AVAIL_NEXT = 10  # the available idx once everything added is published
AVAIL_PUBLISHED = 11
USED_SEEN = 12
USED_LENGTH = 13  # of the element taken last
_NEXT = 16  # of each descriptor: the next of its chain or of the free list; then of each head: its descriptors


@kernel
def _store_desc(address: int, gpa: int, length_bytes: int, flags: int, after: int) -> None:
    store_i64(address, gpa)
    store_i64(address + DESC_WORD, length_bytes | flags << FLAGS_SHIFT | after << NEXT_SHIFT)


@kernel
def _element_is_sound(state: _Words, gpas: _Words, lengths: _Words, count: int) -> bool:
    count_max = state[SIZE]
    if count > 1 and state[TABLE_DESCS] > 0:
        count_max = min(count_max, state[TABLE_DESCS])
    if count < 1 or count > count_max or count > gpas.shape[0] or count > lengths.shape[0]:
        return False
    total_bytes = 0
    for i in range(count):
        if lengths[i] < 0 or lengths[i] > LENGTH_MASK:
            return False
        total_bytes += lengths[i]
    return total_bytes <= ELEMENT_BYTES_MAX


@kernel
def _fill_table(state: _Words, head: int, gpas: _Words, lengths: _Words, count: int, flags: int) -> None:
    """Write the indirect table of this head and the descriptor that refers to it."""
    table_gpa = state[TABLES_GPA] + head * state[TABLE_DESCS] * DESC_BYTES
    address = state[RAM_ADDRESS] + table_gpa
    for i in range(count - 1):
        _store_desc(address + i * DESC_BYTES, gpas[i], lengths[i], flags | DESC_F_NEXT, i + 1)
    _store_desc(address + (count - 1) * DESC_BYTES, gpas[count - 1], lengths[count - 1], flags, 0)
    _store_desc(state[DESC_ADDRESS] + head * DESC_BYTES, table_gpa, count * DESC_BYTES, DESC_F_INDIRECT, 0)


@kernel
def _fill_chain(state: _Words, head: int, gpas: _Words, lengths: _Words, count: int, flags: int) -> int:
    """Write the element as a chain along the free list from `head` on; the chain's last descriptor."""
    index = head
    for i in range(count - 1):
        after = state[_NEXT + index]
        _store_desc(state[DESC_ADDRESS] + index * DESC_BYTES, gpas[i], lengths[i], flags | DESC_F_NEXT, after)
        index = after
    _store_desc(state[DESC_ADDRESS] + index * DESC_BYTES, gpas[count - 1], lengths[count - 1], flags, 0)
    return index


@kernel
def add_element(state: _Words, gpas: _Words, lengths: _Words, count: int, writable: int) -> int:
    """Place one element of `count` buffers; the device sees it after `publish` (virtio 1.2, 2.7.13.1 and 2.7.13.2).

    With indirect descriptors negotiated, an element of two buffers or more takes one descriptor and an indirect table;
    otherwise it is a chain.

    Args:
        state: a DriverRing's state.
        gpas: int64, guest-physical addresses of the buffers.
        lengths: int64, their lengths in bytes, of 32 bits each and at most 2^32 in total.
        count: how many of them to use.
        writable: 1 if the device may write to the buffers, 0 if it may read them.

    Returns:
        The element's head; AGAIN if there are too few free descriptors; BAD_ELEMENT.
    """
    if not _element_is_sound(state, gpas, lengths, count):
        return BAD_ELEMENT
    indirect = count > 1 and state[TABLE_DESCS] > 0
    descs = 1 if indirect else count
    if state[FREE_COUNT] < descs:
        return AGAIN
    size, head = state[SIZE], state[FREE_HEAD]
    flags = DESC_F_WRITE if writable else 0
    last = head
    if indirect:
        _fill_table(state, head, gpas, lengths, count, flags)
    else:
        last = _fill_chain(state, head, gpas, lengths, count, flags)
    state[FREE_HEAD] = state[_NEXT + last]
    state[FREE_COUNT] -= descs
    state[_NEXT + size + head] = descs
    slot = state[AVAIL_NEXT] & size - 1
    store_u16(state[AVAIL_ADDRESS] + RING_ENTRIES + slot * AVAIL_ENTRY_BYTES, head)
    state[AVAIL_NEXT] = state[AVAIL_NEXT] + 1 & INDEX_MASK
    return int(head)


@kernel
def publish(state: _Words) -> int:
    """Make everything added visible to the device (virtio 1.2, 2.7.13.3); 1 if it must be kicked (2.7.10.1), else 0."""
    new, old = state[AVAIL_NEXT], state[AVAIL_PUBLISHED]
    if new == old:
        return 0
    store_u16_release(state[AVAIL_ADDRESS] + RING_IDX, new)
    state[AVAIL_PUBLISHED] = new
    fence()  # idx before avail_event and flags, or a kick is lost (2.7.13.4.1)
    if state[EVENT_IDX]:
        avail_event = load_u16(state[USED_ADDRESS] + RING_ENTRIES + state[SIZE] * USED_ENTRY_BYTES)
        return 1 if need_event(avail_event, new, old) else 0
    return 0 if load_u16(state[USED_ADDRESS] + RING_FLAGS) & USED_F_NO_NOTIFY else 1


@kernel
def take_used(state: _Words) -> int:
    """Take the next element that the device is done with, and free its descriptors (virtio 1.2, 2.7.14).

    The length that the device gave is in `state[USED_LENGTH]` until the next call. After an error nothing has changed,
    and the ring can only be reset.

    Returns:
        The element's head; AGAIN if there is none; USED_IDX, USED_ID_RANGE or USED_ID_NOT_OUTSTANDING.
    """
    size, seen = state[SIZE], state[USED_SEEN]
    ready = load_u16_acquire(state[USED_ADDRESS] + RING_IDX) - seen & INDEX_MASK
    if ready == 0:
        return AGAIN
    if ready > (state[AVAIL_PUBLISHED] - seen & INDEX_MASK):
        return USED_IDX
    entry = load_i64(state[USED_ADDRESS] + RING_ENTRIES + (seen & size - 1) * USED_ENTRY_BYTES)
    head = entry & LENGTH_MASK
    if head >= size:
        return USED_ID_RANGE
    descs = state[_NEXT + size + head]
    if descs == 0:
        return USED_ID_NOT_OUTSTANDING
    last = head
    for _ in range(descs - 1):
        last = state[_NEXT + last]
    state[_NEXT + last] = state[FREE_HEAD]
    state[FREE_HEAD] = head
    state[FREE_COUNT] += descs
    state[_NEXT + size + head] = 0
    state[USED_LENGTH] = entry >> 32 & LENGTH_MASK
    state[USED_SEEN] = seen + 1 & INDEX_MASK
    return int(head)


@kernel
def arm_call(state: _Words) -> int:
    """Ask for a call when the next element is used (virtio 1.2, 2.7.7.1); 1 if one is there, so do not sleep."""
    if state[EVENT_IDX]:
        store_u16(state[AVAIL_ADDRESS] + RING_ENTRIES + state[SIZE] * AVAIL_ENTRY_BYTES, state[USED_SEEN])
    else:
        store_u16(state[AVAIL_ADDRESS] + RING_FLAGS, 0)
    fence()  # the request before the look, or a call is lost (2.7.14)
    return 1 if load_u16_acquire(state[USED_ADDRESS] + RING_IDX) != state[USED_SEEN] else 0


@kernel
def disarm_call(state: _Words) -> None:
    """Ask for no calls until `arm_call`; with the event index there are none anyway, once the one armed for came."""
    if not state[EVENT_IDX]:
        store_u16(state[AVAIL_ADDRESS] + RING_FLAGS, AVAIL_F_NO_INTERRUPT)


class DriverRing:
    """A queue's driver half: owns the state that the kernels of this module work on, and checks what goes in.

    Attributes:
        state: int64 array; the first argument of every kernel here.
    """

    state: _Words

    def __init__(
        self,
        size: int,
        *,
        ram_address: int,
        place: RingPlace,
        event_idx: bool,
        table_descs: int = 0,
        tables_gpa: int = 0,
    ) -> None:
        """Clear the queue's memory and start with every descriptor free.

        Args:
            size: of the queue, in descriptors.
            ram_address: address in this process of guest-physical address 0; RAM is contiguous from there.
            place: where its parts are.
            event_idx: whether VIRTIO_F_EVENT_IDX was negotiated.
            table_descs: descriptors in each indirect table, at most `size`; 0 if VIRTIO_F_INDIRECT_DESC was not
                negotiated.
            tables_gpa: `size` indirect tables of `16 * table_descs` bytes each, one after the other.

        Raises:
            ValueError: a size or an address is not one that virtio 1.2, 2.7 and 2.7.5.3.1, allow.
        """
        check_queue_size(size)
        desc_gpa, avail_gpa, used_gpa, _ = place
        check_alignment(desc_gpa, avail_gpa, used_gpa)
        if not 0 <= table_descs <= size:
            raise ValueError(f"an indirect table has at most as many descriptors as the queue ({size}): {table_descs}")
        for gpa, size_bytes in (
            (desc_gpa, desc_table_bytes(size)),
            (avail_gpa, avail_ring_bytes(size)),
            (used_gpa, used_ring_bytes(size)),
        ):
            ctypes.memset(ram_address + gpa, 0, size_bytes)
        self.state = np.zeros(_NEXT + 2 * size, np.int64)
        self.state[SIZE] = size
        self.state[DESC_ADDRESS] = ram_address + desc_gpa
        self.state[AVAIL_ADDRESS] = ram_address + avail_gpa
        self.state[USED_ADDRESS] = ram_address + used_gpa
        self.state[RAM_ADDRESS] = ram_address
        self.state[EVENT_IDX] = event_idx
        self.state[TABLE_DESCS] = table_descs
        self.state[TABLES_GPA] = tables_gpa
        self.state[FREE_COUNT] = size
        self.state[_NEXT : _NEXT + size] = np.arange(1, size + 1)

    @property
    def free_descs(self) -> int:
        """How many descriptors are free."""
        return int(self.state[FREE_COUNT])

    def add_element(self, gpas: _Words, lengths: _Words, *, writable: bool) -> int | None:
        """Place one element of all these buffers; its head, or None if there are too few free descriptors.

        Args:
            gpas: int64, guest-physical addresses.
            lengths: int64, bytes; as many as addresses.
            writable: whether the device may write to them; otherwise it may read them.

        Raises:
            RingError: the element is one that virtio 1.2 does not allow (BAD_ELEMENT).
        """
        assert gpas.shape == lengths.shape, "an address for every length"
        head = checked(add_element(self.state, gpas, lengths, gpas.shape[0], int(writable)))
        return None if head == AGAIN else head

    def publish(self) -> bool:
        """Make everything added visible to the device; whether it must be kicked."""
        return bool(publish(self.state))

    def take_used(self) -> list[tuple[int, int]]:
        """Take all elements that the device is done with: each one's head and the bytes written, in its order.

        Raises:
            RingError: the device broke a rule; the ring can only be reset.
        """
        taken: list[tuple[int, int]] = []
        while (head := checked(take_used(self.state))) != AGAIN:
            taken.append((head, int(self.state[USED_LENGTH])))
        assert self.free_descs <= self.state[SIZE]
        return taken

    def arm_call(self) -> bool:
        """Ask for a call when the next element is used; whether one is already there, so that one must not sleep."""
        return bool(arm_call(self.state))

    def disarm_call(self) -> None:
        """Ask for no calls until `arm_call`."""
        disarm_call(self.state)
