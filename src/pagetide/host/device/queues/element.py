"""One element of an inflate, deflate or reporting queue: what is to be done for it, and how far that has come.

An element can be more than a turn's work (turn.py), so how far it has come is kept in an array of its queue's. What is
left of a turn is in an array of the device's.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.device.queues.inflate import inflated_ranges, read_pfns
from pagetide.host.memory.discard import punch_next
from pagetide.host.memory.huge_pages import close_books, take_back
from pagetide.host.memory.ledger import MALFORMED, REPORTED_BYTES
from pagetide.host.memory.ranges import RANGE_END, RANGE_START, reported_ranges, skip_bytes
from pagetide.jit import kernel
from pagetide.memory.region_map import WHOLE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Queue
from pagetide.virtio.split_ring.device import UNDER_WAY

ELEMENTS_PER_TURN = 16
"""Most elements served before another guest has its turn."""

TURN_BYTES_MAX = 256 << 20
"""A turn ends with the piece that reaches this many bytes discarded: about 30 ms of punching small pages."""

TURN_PUNCHES_MAX = 4096
"""A turn ends with this many discarding calls: some 15 ms, if each is for a single page."""

SHARE_UNIT = 1 << 20

# The control array, one for all queues of a device.
VERIFY_SHARE = 0  # in units of 1 / SHARE_UNIT
VERIFY_CREDIT = 1  # an element is read back whenever this passes one unit
FAILURE = 2  # errno of the discarding call that failed last
TURN_BYTES = 3  # the bounds of a turn
TURN_PUNCHES = 4
BYTES_LEFT = 5  # and what is left of them in this one
PUNCHES_LEFT = 6
DEVICE_INIT = 7  # not 0 if reports are given back with what of them reads as zeros
KEEPS = 8  # not 0 if the driver tells before it uses inflated pages again
CONTROL_WORDS = 9

# How far the element under way has come, an array a queue.
NEXT_RANGE = 0  # the range to go on with
RANGE_COUNT = 1
VERIFY = 2  # whether it is read back
DEALT_BYTES = 3  # how much of it was dealt with
COUNTED_BYTES = 4  # how much of it was accounted for when it was served before
NAMED_BYTES = 5  # what its descriptors name
GONE_BYTES = 6  # how much of it was verified gone
JOINED = 7  # elements that are to be dealt with together (joined.py); 0 between two turns
JOINED_RANGES = 8  # their ranges
JOINED_BYTES = 9
JOINED_VERIFY = 10  # whether they are read back
HEADS = 11  # where they are given back
PROGRESS_WORDS = HEADS + ELEMENTS_PER_TURN

REPORTING = int(Queue.REPORTING)
INFLATE = int(Queue.INFLATE)

_Words = npt.NDArray[np.int64]


def turn_control(
    verify_share: float = 0.0, *, bytes_max: int = TURN_BYTES_MAX, punches_max: int = TURN_PUNCHES_MAX
) -> _Words:
    """A device's control array.

    Args:
        verify_share: share of elements that are read back, evenly spread, the first one included.
        bytes_max: the turn ends with the piece that reaches so many bytes discarded.
        punches_max: and with so many discarding calls.
    """
    control = np.zeros(CONTROL_WORDS, np.int64)
    control[VERIFY_SHARE] = round(verify_share * SHARE_UNIT)
    control[VERIFY_CREDIT] = SHARE_UNIT - control[VERIFY_SHARE] if verify_share else 0
    control[TURN_BYTES], control[TURN_PUNCHES] = bytes_max, punches_max
    return control


@kernel
def begin_element(
    queue: int,
    ring: _Words,
    regions: _Words,
    gpas: _Words,
    lengths: _Words,
    flags: _Words,
    count: int,
    ranges: _Words,
    progress: _Words,
    control: _Words,
    ledger: _Words,
    spare: _Words,
) -> None:
    """Find out what is to be done for the element that was popped, and account for what is wrong with it."""
    account = spare if progress[COUNTED_BYTES] > 0 else ledger
    kept: int = 0
    if queue == REPORTING:
        kept = reported_ranges(regions, gpas, lengths, flags, count, ranges, account)
    elif queue == INFLATE:
        kept = inflated_ranges(regions, gpas, lengths, flags, count, ranges, account)
    else:
        malformed = account[MALFORMED]
        usable = read_pfns(regions, gpas, lengths, flags, count, ranges, account)
        take_back(regions, ranges, usable)
        if account[MALFORMED] != malformed:
            close_books(regions)  # what it takes back is not known
        account[REPORTED_BYTES] += usable * PAGE_SIZE_BYTES
    verify: int = 0
    if queue in (REPORTING, INFLATE):
        control[VERIFY_CREDIT] += control[VERIFY_SHARE]
        verify = 1 if control[VERIFY_CREDIT] >= SHARE_UNIT else 0
        control[VERIFY_CREDIT] -= verify * SHARE_UNIT
    progress[NEXT_RANGE] = 0
    progress[RANGE_COUNT] = kept
    progress[VERIFY] = verify
    progress[DEALT_BYTES] = 0
    progress[GONE_BYTES] = 0
    named_bytes: int = 0
    for index in range(count):
        named_bytes += lengths[index]
    progress[NAMED_BYTES] = named_bytes
    ring[UNDER_WAY] = 1


@kernel
def go_on(
    regions: _Words,
    ranges: _Words,
    progress: _Words,
    control: _Words,
    keep: int,
    skip: int,
    ledger: _Words,
    spare: _Words,
) -> int:
    """Deal with the element under way until it is done or the turn has had enough; 0, or the errno of a failed call."""
    failure: int = 0
    while progress[NEXT_RANGE] < progress[RANGE_COUNT] and control[BYTES_LEFT] > 0 and control[PUNCHES_LEFT] > 0:
        index = progress[NEXT_RANGE]
        start = ranges[index, RANGE_START]
        counted_bytes = progress[COUNTED_BYTES] - progress[DEALT_BYTES]
        account = spare if counted_bytes > 0 else ledger
        bytes_max = counted_bytes if counted_bytes > 0 else WHOLE
        if skip != 0:
            end = start + min(bytes_max, ranges[index, RANGE_END] - start)
            skip_bytes(end - start, skip, account)
            ranges[index, RANGE_START] = end
        else:
            failed = punch_next(regions, ranges, index, bytes_max, keep, progress[VERIFY], account)
            if failed != 0:
                failure = failed
            control[BYTES_LEFT] -= ranges[index, RANGE_START] - start
            control[PUNCHES_LEFT] -= 1
        progress[DEALT_BYTES] += ranges[index, RANGE_START] - start
        if ranges[index, RANGE_START] == ranges[index, RANGE_END]:
            progress[NEXT_RANGE] += 1
    return failure


@kernel
def initialised_bytes(progress: _Words) -> int:
    """The used length of a report that is done, with DEVICE_INIT_REPORTED: all of it if all is gone, otherwise 0.

    Memory that was verified gone reads as zeros until the guest writes to it. The draft (virtio-spec issue 244, May
    2026) has the device tell so by the used length, which has 32 bits.
    """
    named_bytes = progress[NAMED_BYTES]
    return int(named_bytes) if progress[GONE_BYTES] == named_bytes and named_bytes < 1 << 32 else 0
