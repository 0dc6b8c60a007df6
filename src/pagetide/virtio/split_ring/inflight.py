"""What a device has taken from a split virtqueue and not given back, in memory that outlives it.

The layout and the order of the stores are those of QEMU's docs/interop/vhost-user.rst, "Inflight I/O tracking": one
region a queue, a head of 16 bytes and then 16 bytes a descriptor. The back-end makes the memory, the front-end keeps
it, and a back-end that takes over finds in it which elements its predecessor took and never gave back.

A process that is killed has made all stores before some point of its program and none after it. So what matters is the
order in which the compiler leaves them, which release stores and the fence in `publish_used` fix:

    taken        counter, then inflight = 1, then anything is done for the element
    given back   next, then last_batch_head; once for each element of a batch
    published    the used ring's idx; then inflight = 0 for the whole batch; then used_idx

If used_idx is not the ring's idx, the last batch was published, and its list says which flags are still to be cleared.
The memory is the front-end's as well: what is read here is checked like everything that a guest writes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.atomics import load_i64, load_u16, store_i64, store_u16, store_u16_release
from pagetide.jit import kernel
from pagetide.virtio.split_ring.ring import INDEX_MASK

# QueueRegionSplit
REGION_VERSION = 8
REGION_DESC_NUM = 10
REGION_LAST_BATCH_HEAD = 12
REGION_USED_IDX = 14
REGION_HEAD_BYTES = 16

# DescStateSplit
STATE_INFLIGHT = 0  # a byte; written together with the padding byte after it, as one release store
STATE_NEXT = 6
STATE_COUNTER = 8
STATE_BYTES = 16

VERSION = 1
"""Of the layout; 0 is a region that is not in use."""

_REGION_ALIGN = 64  # a cache line; QEMU's libvhost-user has the same
_FLAG_MASK = 0xFF

FRESH = 0
TAKEN_OVER = 1
BAD_VERSION = -1
BAD_DESC_NUM = -2
BAD_BATCH = -3

_ERRORS = {
    BAD_VERSION: f"its version is neither 0 nor {VERSION}",
    BAD_DESC_NUM: "it is for another number of descriptors",
    BAD_BATCH: "its last batch is not one of this queue",
}

_Words = npt.NDArray[np.int64]


class InflightRegion(NamedTuple):
    """A queue's region.

    Attributes:
        address: where it is in this process, a multiple of 16.
        descs: descriptors for which it has room.
    """

    address: int
    descs: int


def region_bytes(descs: int) -> int:
    """Size of a region with room for this many descriptors."""
    return -(-(REGION_HEAD_BYTES + STATE_BYTES * descs) // _REGION_ALIGN) * _REGION_ALIGN


@kernel
def note_taken(region: int, head: int, counter: int) -> None:
    """An element was taken; the counter is larger than that of any taken before."""
    state = region + REGION_HEAD_BYTES + head * STATE_BYTES
    store_i64(state + STATE_COUNTER, counter)
    store_u16_release(state + STATE_INFLIGHT, 1)


@kernel
def note_given_back(region: int, head: int) -> None:
    """An element is in the used ring and not published: add it to the batch."""
    state = region + REGION_HEAD_BYTES + head * STATE_BYTES
    store_u16(state + STATE_NEXT, load_u16(region + REGION_LAST_BATCH_HEAD))
    store_u16_release(region + REGION_LAST_BATCH_HEAD, head)


@kernel
def note_published(region: int, descs: int, count: int, used_idx: int) -> int:
    """The used ring's idx says that the last `count` elements are given back; 0, or BAD_BATCH with nothing settled."""
    if count > descs:
        return BAD_BATCH
    head = load_u16(region + REGION_LAST_BATCH_HEAD)
    for _ in range(count):
        if head >= descs:
            return BAD_BATCH
        state = region + REGION_HEAD_BYTES + head * STATE_BYTES
        store_u16_release(state + STATE_INFLIGHT, 0)
        head = load_u16(state + STATE_NEXT)
    store_u16_release(region + REGION_USED_IDX, used_idx)
    return 0


@kernel
def _begin(region: int, descs: int, used_idx: int) -> int:
    """Make a region ready, settling what its last user could not; FRESH, TAKEN_OVER or an error."""
    version = load_u16(region + REGION_VERSION)
    if version == 0:
        for head in range(descs):
            store_u16(region + REGION_HEAD_BYTES + head * STATE_BYTES + STATE_INFLIGHT, 0)
        store_u16(region + REGION_DESC_NUM, descs)
        store_u16(region + REGION_USED_IDX, used_idx)
        store_u16_release(region + REGION_VERSION, VERSION)
        return FRESH
    if version != VERSION:
        return BAD_VERSION
    if load_u16(region + REGION_DESC_NUM) != descs:
        return BAD_DESC_NUM
    unsettled = used_idx - load_u16(region + REGION_USED_IDX) & INDEX_MASK
    if unsettled != 0 and note_published(region, descs, unsettled, used_idx) < 0:
        return BAD_BATCH
    return TAKEN_OVER


@kernel
def _collect(region: int, descs: int, heads: _Words, counters: _Words) -> int:
    """The heads that are in flight and their counters, in no order; how many."""
    count = 0
    for head in range(descs):
        state = region + REGION_HEAD_BYTES + head * STATE_BYTES
        if load_u16(state + STATE_INFLIGHT) & _FLAG_MASK == 1:
            heads[count] = head
            counters[count] = load_i64(state + STATE_COUNTER)
            count += 1
    return count


@kernel
def _end(region: int, descs: int) -> None:
    for head in range(descs):
        store_u16(region + REGION_HEAD_BYTES + head * STATE_BYTES + STATE_INFLIGHT, 0)
    store_u16_release(region + REGION_VERSION, 0)


def begin_tracking(region: InflightRegion, size: int, used_idx: int) -> tuple[list[int], int] | None:
    """Begin to use a region: what its last user took and never gave back, and the counter of the next element.

    Args:
        region: the queue's.
        size: of the queue, in descriptors.
        used_idx: the used ring's idx, as it is in memory.

    Returns:
        Heads in the order in which they were taken, and a counter above theirs; None if the region was not in use.

    Raises:
        ValueError: the region is not one of this queue's.
    """
    if size > region.descs:
        raise ValueError(f"a queue of {size} does not fit its in-flight region, which has room for {region.descs}")
    outcome = int(_begin(region.address, region.descs, used_idx))
    if outcome < 0:
        raise ValueError(f"the in-flight region cannot be used: {_ERRORS[outcome]}")
    if outcome == FRESH:
        return None
    heads, counters = np.zeros((2, region.descs), np.int64)
    count = _collect(region.address, region.descs, heads, counters)
    heads, counters = heads[:count], counters[:count]
    if count and heads.max() >= size:
        raise ValueError("the in-flight region cannot be used: it names descriptors that the queue does not have")
    order = np.argsort(counters, kind="stable")
    # A hostile counter may be the largest there is; the order of later elements is then nobody's but its guest's.
    return heads[order].tolist(), min(int(counters.max(initial=-1)), (1 << 62)) + 1


def end_tracking(region: InflightRegion) -> None:
    """Leave a region: the queue was stopped in order, and whoever starts it next is told where."""
    _end(region.address, region.descs)
