"""Small reports of one turn dealt with together: their ranges in the order of addresses, those that adjoin in one call.

All of these elements are out for reporting at that moment, so whatever adjoins may go at once; a page between two
ranges, which the guest may be writing to, is in no call. Each element is given back when all of them are discarded and
read back. They are few and small enough that this is never interrupted: what is larger is dealt with by itself, in
pieces (element.py).
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.device.queues.element import (
    BYTES_LEFT,
    COUNTED_BYTES,
    DEVICE_INIT,
    ELEMENTS_PER_TURN,
    FAILURE,
    HEADS,
    JOINED,
    JOINED_BYTES,
    JOINED_RANGES,
    JOINED_VERIFY,
    PUNCHES_LEFT,
    RANGE_COUNT,
    REPORTING,
    VERIFY,
)
from pagetide.host.memory.discard import punch_together
from pagetide.host.memory.ledger import PUNCHES
from pagetide.host.memory.pieces import PIECE_BYTES
from pagetide.host.memory.ranges import RANGE_END, RANGE_REGION, RANGE_START, join_adjacent
from pagetide.jit import kernel
from pagetide.memory.region_map import REGION_UNIT
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.split_ring.device import POPPED_HEAD, UNDER_WAY, push_used

JOINED_BYTES_MAX = PIECE_BYTES
"""Most that is joined: no call discards more."""

JOINED_RANGES_MAX = 1024

_Words = npt.NDArray[np.int64]


@kernel
def may_join(queue: int, regions: _Words, control: _Words, skip: int) -> int:
    """Whether elements of a turn may be dealt with together.

    Not where each is told what became of it (DEVICE_INIT_REPORTED), and not on hugetlbfs, where a page goes once all of
    it is out in one element.
    """
    if queue != REPORTING or control[DEVICE_INIT] != 0 or skip != 0:
        return 0
    for row in range(regions.shape[0]):
        if regions[row, REGION_UNIT] > PAGE_SIZE_BYTES:
            return 0
    return 1


@kernel
def join(ring: _Words, regions: _Words, ranges: _Words, progress: _Words, control: _Words) -> int:
    """Have the element that was just begun dealt with together with those joined before it; 0 if it does not fit.

    Its ranges follow theirs. All joined ranges together are within what is left of the turn.
    """
    first, joined = progress[JOINED_RANGES], progress[JOINED]
    count = first + progress[RANGE_COUNT]
    # A range of so few bytes is one call, or two where a piece ends in it, or as many as there are regions in it.
    if joined == ELEMENTS_PER_TURN or count > JOINED_RANGES_MAX or progress[COUNTED_BYTES] > 0:
        return 0
    if 2 * count + regions.shape[0] > control[PUNCHES_LEFT] or (
        joined > 0 and progress[VERIFY] != progress[JOINED_VERIFY]
    ):
        return 0
    size_bytes = progress[JOINED_BYTES]
    for index in range(first, count):
        size_bytes += ranges[index, RANGE_END] - ranges[index, RANGE_START]
    if size_bytes > min(JOINED_BYTES_MAX, control[BYTES_LEFT]):
        return 0
    progress[HEADS + joined] = ring[POPPED_HEAD]
    progress[JOINED] = joined + 1
    progress[JOINED_RANGES], progress[JOINED_BYTES], progress[JOINED_VERIFY] = count, size_bytes, progress[VERIFY]
    ring[UNDER_WAY] = 0
    return 1


@kernel
def bring_forward(ranges: _Words, first: int, count: int) -> None:
    """Move the ranges of an element that was not joined to where they are when it comes alone."""
    for index in range(count):
        ranges[index, RANGE_START] = ranges[first + index, RANGE_START]
        ranges[index, RANGE_END] = ranges[first + index, RANGE_END]
        ranges[index, RANGE_REGION] = ranges[first + index, RANGE_REGION]


@kernel
def finish_joined(
    ring: _Words, regions: _Words, ranges: _Words, progress: _Words, control: _Words, ledger: _Words
) -> None:
    """Discard what was joined, then give its elements back, in the order in which they were taken."""
    count, verify = progress[JOINED_RANGES], progress[JOINED_VERIFY]
    if progress[JOINED] > 1:
        count = join_adjacent(ranges, count)
    punches = ledger[PUNCHES]
    failure = punch_together(regions, ranges, count, verify, ledger)
    if failure != 0:
        control[FAILURE] = failure
    control[PUNCHES_LEFT] -= ledger[PUNCHES] - punches
    control[BYTES_LEFT] -= progress[JOINED_BYTES]
    for place in range(progress[JOINED]):
        push_used(ring, progress[HEADS + place], 0)  # nothing was written, as every device has it
    progress[JOINED] = progress[JOINED_RANGES] = progress[JOINED_BYTES] = 0
