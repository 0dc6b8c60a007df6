"""The device half of a split virtqueue (virtio 1.2, 2.7).

The driver is not trusted: whatever it writes, and whenever, these kernels read nothing but the queue's own three parts
and what descriptor_chain.py allows, end after a bounded number of steps, and answer a count or an error. Each byte of
guest memory is loaded once for a decision, so that it cannot change between check and use.

An element is taken by `pop_element`, given back by `push_used`, and the driver sees it after `publish_used`. All calls
on one ring come from one thread at a time. Their state belongs to a `DeviceRing` (device_ring.py).
"""

import numpy as np
import numpy.typing as npt

from pagetide.atomics import (
    fence,
    load_u16,
    load_u16_acquire,
    store_u16,
    store_u16_release,
    store_u32,
)
from pagetide.jit import kernel
from pagetide.virtio.split_ring.descriptor_chain import read_chain
from pagetide.virtio.split_ring.inflight import (
    note_given_back,
    note_published,
    note_taken,
)
from pagetide.virtio.split_ring.ring import (
    ARRAYS_TOO_SHORT,
    AVAIL_ENTRY_BYTES,
    AVAIL_F_NO_INTERRUPT,
    AVAIL_IDX,
    BAD_PUSH,
    HEAD_RANGE,
    INDEX_MASK,
    LENGTH_MASK,
    RING_ENTRIES,
    RING_FLAGS,
    RING_IDX,
    USED_ENTRY_BYTES,
    USED_F_NO_NOTIFY,
    need_event,
)

_Words = npt.NDArray[np.int64]

# The state array.
SIZE = 0
DESC_ADDRESS = 1
AVAIL_ADDRESS = 2
USED_ADDRESS = 3
EVENT_IDX = 4
INDIRECT = 5
LAST_AVAIL = 6  # the available ring entry to pop next
AVAIL_SEEN = 7  # the available idx as last loaded, and checked then
USED_NEXT = 8  # the used idx once everything pushed is published
USED_PUBLISHED = 9
POPPED_HEAD = 10  # of the element popped last
INFLIGHT_ADDRESS = 11  # of the queue's in-flight region; 0 for none
INFLIGHT_COUNTER = 12  # of the next element that is taken
RESUBMITS = 13  # elements of a predecessor's that are still to be popped
INFLIGHT_DESCS = 14
UNDER_WAY = 15  # 1 while the element popped last is dealt with, and that takes more than one turn
STATE_WORDS = 16  # then the heads of those elements, the one to pop first at the end


@kernel
def avail_idx_now(state: _Words) -> int:
    """The driver's available idx, as it is in memory now; unchecked."""
    return load_u16_acquire(state[AVAIL_ADDRESS] + RING_IDX)


@kernel
def _look(state: _Words) -> int:
    """How many elements are there to pop, loading the available idx only if none is known of; or AVAIL_IDX."""
    last = state[LAST_AVAIL]
    if state[AVAIL_SEEN] == last:
        seen = load_u16_acquire(state[AVAIL_ADDRESS] + RING_IDX)
        outstanding = last - state[USED_NEXT] & INDEX_MASK
        if (seen - last & INDEX_MASK) > state[SIZE] - outstanding:
            return AVAIL_IDX
        state[AVAIL_SEEN] = seen
    return int(state[AVAIL_SEEN] - last & INDEX_MASK)


@kernel
def pop_element(state: _Words, regions: _Words, gpas: _Words, lengths: _Words, flags: _Words) -> int:
    """Take the next available element: its descriptors in order, those of an indirect table included.

    Elements that a predecessor took and never gave back come first.

    The element's head is in `state[POPPED_HEAD]` until the next call. After an error nothing has changed, and the ring
    can only be reset. What 2.7.4.2 demands of the driver, device-readable descriptors before device-writable ones, is
    not checked here: the flags let the device decide.

    Args:
        state: a DeviceRing's state.
        regions: the guest's region table (`RegionMap.table`), in which indirect tables are looked up.
        gpas: int64, receives guest-physical addresses; those of 2^63 and above come out negative.
        lengths: int64, receives lengths in bytes, from 0 to 2^32 - 1.
        flags: int64, receives DESC_F_WRITE or 0. The three arrays are equally long, at least as long as the queue; a
            table with more descriptors than there is room for is refused.

    Returns:
        The number of descriptors, at least 1; 0 if nothing is available; a negative code that `error_text` explains.
    """
    size, room = state[SIZE], gpas.shape[0]
    if room < size or lengths.shape[0] != room or flags.shape[0] != room:
        return ARRAYS_TOO_SHORT
    resubmits = state[RESUBMITS]
    if resubmits > 0:
        head = state[STATE_WORDS + resubmits - 1]
    else:
        ready = _look(state)
        if ready <= 0:
            return ready
        slot = state[LAST_AVAIL] & size - 1
        head = load_u16(state[AVAIL_ADDRESS] + RING_ENTRIES + slot * AVAIL_ENTRY_BYTES)
        if head >= size:
            return HEAD_RANGE
    count = read_chain(state[DESC_ADDRESS], size, head, state[INDIRECT], regions, gpas, lengths, flags)
    if count > 0:
        state[POPPED_HEAD] = head
        if resubmits > 0:
            state[RESUBMITS] = resubmits - 1  # it is in flight, and counted as taken, since before our time
        else:
            state[LAST_AVAIL] = state[LAST_AVAIL] + 1 & INDEX_MASK
            if state[INFLIGHT_ADDRESS]:
                note_taken(state[INFLIGHT_ADDRESS], head, state[INFLIGHT_COUNTER])
                state[INFLIGHT_COUNTER] += 1
    return count


@kernel
def push_used(state: _Words, head: int, length_bytes: int) -> int:
    """Give an element back; the driver sees it after `publish_used` (virtio 1.2, 2.7.8.2).

    Args:
        state: a DeviceRing's state.
        head: the element's, as popped. Elements may be given back in any order.
        length_bytes: how much was written to the element, from its first device-writable byte on.

    Returns:
        0; BAD_PUSH if nothing is outstanding or a number is out of range.
    """
    size, used = state[SIZE], state[USED_NEXT]
    if used == state[LAST_AVAIL] or head < 0 or head >= size or length_bytes < 0 or length_bytes > LENGTH_MASK:
        return BAD_PUSH
    entry = state[USED_ADDRESS] + RING_ENTRIES + (used & size - 1) * USED_ENTRY_BYTES
    store_u32(entry, head)
    store_u32(entry + 4, length_bytes)
    if state[INFLIGHT_ADDRESS]:
        note_given_back(state[INFLIGHT_ADDRESS], head)
    state[USED_NEXT] = used + 1 & INDEX_MASK
    return 0


@kernel
def publish_used(state: _Words) -> int:
    """Make everything pushed visible to the driver (virtio 1.2, 2.7.8.2); 1 if it wants a call (2.7.7.2), else 0."""
    new, old = state[USED_NEXT], state[USED_PUBLISHED]
    if new == old:
        return 0
    store_u16_release(state[USED_ADDRESS] + RING_IDX, new)
    state[USED_PUBLISHED] = new
    if state[INFLIGHT_ADDRESS]:
        # A list that the front-end has spoilt is left alone: it is its own guest that would be taken over wrongly.
        note_published(state[INFLIGHT_ADDRESS], state[INFLIGHT_DESCS], new - old & INDEX_MASK, new)
    # idx before used_event and flags, or a call is lost (2.7.7, 2.7.14); used_idx before the next batch's list.
    fence()
    if state[EVENT_IDX]:
        used_event = load_u16(state[AVAIL_ADDRESS] + RING_ENTRIES + state[SIZE] * AVAIL_ENTRY_BYTES)
        return 1 if need_event(used_event, new, old) else 0
    return 0 if load_u16(state[AVAIL_ADDRESS] + RING_FLAGS) & AVAIL_F_NO_INTERRUPT else 1


@kernel
def arm_kick(state: _Words) -> int:
    """Ask for a kick when the next element is published (virtio 1.2, 2.7.10.2); 1 if one is there, so do not sleep."""
    if state[EVENT_IDX]:
        store_u16(state[USED_ADDRESS] + RING_ENTRIES + state[SIZE] * USED_ENTRY_BYTES, state[LAST_AVAIL])
    else:
        store_u16(state[USED_ADDRESS] + RING_FLAGS, 0)
    fence()  # the request before the look, or a kick is lost (2.7.13.4.1)
    return 1 if load_u16_acquire(state[AVAIL_ADDRESS] + RING_IDX) != state[LAST_AVAIL] else 0


@kernel
def disarm_kick(state: _Words) -> None:
    """Ask for no kicks until `arm_kick`; with the event index there are none anyway, once the one armed for came."""
    if not state[EVENT_IDX]:
        store_u16(state[USED_ADDRESS] + RING_FLAGS, USED_F_NO_NOTIFY)
