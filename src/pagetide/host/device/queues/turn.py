"""A turn on a queue of blocks or pages, as one kernel: take elements, discard, read back, give the elements back.

There is no Python in between. A turn is bounded by a number of elements, by TURN_BYTES_MAX and by TURN_PUNCHES_MAX, so
that one guest's backlog, or one large element, does not keep the others waiting. It may end within an element, which is
given back when all of it is dealt with: guests with pages of 64 KiB report up to 16 GiB in one.

An element that is under way when its queue is stopped, or the device is gone, is served again, whole: nothing is lost
by that, since its blocks are out of the guest's allocator. Where this device serves it again, the bytes that it had
dealt with are not accounted for twice.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.host.device.allowance import PAID_PAGES
from pagetide.host.device.queues.element import (
    BYTES_LEFT,
    COUNTED_BYTES,
    DEVICE_INIT,
    FAILURE,
    GONE_BYTES,
    INFLATE,
    JOINED,
    JOINED_RANGES,
    KEEPS,
    NEXT_RANGE,
    PUNCHES_LEFT,
    RANGE_COUNT,
    REPORTING,
    TURN_BYTES,
    TURN_PUNCHES,
    begin_element,
    go_on,
    initialised_bytes,
)
from pagetide.host.device.queues.joined import bring_forward, finish_joined, join, may_join
from pagetide.host.memory.ledger import (
    REPORTED_BYTES,
    SKIPPED_DEVICE_READABLE,
    SKIPPED_OUT_OF_RANGE,
    SKIPPED_UNALIGNED,
    VERIFIED_BYTES,
)
from pagetide.jit import kernel
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.split_ring.device import (
    POPPED_HEAD,
    UNDER_WAY,
    USED_NEXT,
    USED_PUBLISHED,
    arm_kick,
    disarm_kick,
    pop_element,
    publish_used,
    push_used,
)
from pagetide.virtio.split_ring.ring import INDEX_MASK, RingError

# A turn's answer, in one int: four bits, the share in vain, how many pages were named, and how many reports served.
CALL = 1
_MORE = 2
_FAILED = 4
_EMPTY = 8
_VAIN_SHIFT = 4
_VAIN_UNIT = 1 << 10
_VAIN_MASK = 2 * _VAIN_UNIT - 1
PAGES_SHIFT = 15
PAGES_MASK = 511
REPORTS_SHIFT = 24
UNUSUAL = _MORE | _FAILED | _EMPTY | _VAIN_MASK << _VAIN_SHIFT
"""None of these is in the answer of a turn after which nothing is to be done but to call the driver."""

_Words = npt.NDArray[np.int64]


class Turn(NamedTuple):
    """What a turn left behind.

    Attributes:
        call: the driver wants to be called.
        more: elements are waiting, and no kick will announce them.
        config_changed: the driver is to be told of a changed configuration.
        in_vain: share of the turn that came to nothing: all of it, but for blocks that the guest rightly named.
        payable: there was nothing to serve, and an honest driver may come to that.
        pages: how many of its own the guest named, up to `PAID_PAGES`; 0 if it named others as well.
        reports: how many elements of the reporting queue were served.
        failure: errno of the discarding call that failed last, or 0.
    """

    call: bool
    more: bool
    config_changed: bool = False
    in_vain: float = 1.0
    payable: bool = False
    pages: int = 0
    reports: int = 0
    failure: int = 0


NOTHING = Turn(call=False, more=False, payable=True)
"""A turn in which nothing happened, and nothing will before the next kick."""


@kernel
def _wrong_bytes(account: _Words) -> int:
    """Bytes that the guest named on a queue and had not, or not so."""
    return int(account[SKIPPED_UNALIGNED] + account[SKIPPED_OUT_OF_RANGE] + account[SKIPPED_DEVICE_READABLE])


@kernel
def _in_vain(named_bytes: int, wrong_bytes: int) -> int:
    """The share that is wrong, in units of 1 / _VAIN_UNIT: 0 only if nothing is, and all if nothing was named."""
    if named_bytes == 0:
        return _VAIN_UNIT
    return 0 if wrong_bytes == 0 else 1 + int((_VAIN_UNIT - 1) * (wrong_bytes / named_bytes))


@kernel
def _worth(named_bytes: int, wrong_bytes: int, elements: int) -> int:
    """What a turn's answer says of what it was good for."""
    worth = _in_vain(named_bytes, wrong_bytes) << _VAIN_SHIFT
    if wrong_bytes == 0:
        worth |= min(named_bytes // PAGE_SIZE_BYTES, PAID_PAGES) << PAGES_SHIFT
    if elements == 0 and named_bytes == 0 and wrong_bytes == 0:
        worth |= _EMPTY
    return int(worth)


@kernel
def _may_rest(ring: _Words) -> int:
    """Ask for a kick, if there is nothing to serve; whether that is so."""
    if arm_kick(ring) == 0:
        return 1
    disarm_kick(ring)
    return 0


@kernel
def _begin_next(
    queue: int,
    ring: _Words,
    regions: _Words,
    gpas: _Words,
    lengths: _Words,
    flags: _Words,
    ranges: _Words,
    progress: _Words,
    control: _Words,
    ledger: _Words,
    spare: _Words,
    joins: int,
) -> int:
    """Take an element, and join it to those before it, or finish those.

    Returns:
        How many descriptors it has, and if it was not joined, it is under way; 0 without one, or the ring's error code.
    """
    first = progress[JOINED_RANGES]
    count = pop_element(ring, regions, gpas, lengths, flags)
    if count > 0:
        own = ranges[first:]
        begin_element(queue, ring, regions, gpas, lengths, flags, count, own, progress, control, ledger, spare)
        if joins != 0 and join(ring, regions, ranges, progress, control) != 0:
            return count
    if progress[JOINED] > 0:
        finish_joined(ring, regions, ranges, progress, control, ledger)
        if count > 0:
            bring_forward(ranges, first, progress[RANGE_COUNT])
            join(ring, regions, ranges, progress, control)
    return count


@kernel
def take_turn(
    queue: int,
    ring: _Words,
    regions: _Words,
    gpas: _Words,
    lengths: _Words,
    flags: _Words,
    ranges: _Words,
    progress: _Words,
    control: _Words,
    ledger: _Words,
    spare: _Words,
    budget: int,
    skip: int,
) -> int:
    """Serve up to `budget` elements, the one under way first; the answer as above, or the ring's error code."""
    control[BYTES_LEFT] = control[TURN_BYTES]
    control[PUNCHES_LEFT] = control[TURN_PUNCHES]
    control[FAILURE] = 0
    named_bytes = ledger[REPORTED_BYTES]
    wrong_bytes = _wrong_bytes(ledger)
    keep = 1 if queue == INFLATE and control[KEEPS] != 0 else 0
    joins = may_join(queue, regions, control, skip)
    disarm_kick(ring)
    count = 0
    more = _MORE
    served = 0
    while served < budget and control[BYTES_LEFT] > 0 and control[PUNCHES_LEFT] > 0:
        served += 1  # also if nothing is there: the driver may take back what it announced, and so on for ever
        if ring[UNDER_WAY] == 0:
            count = _begin_next(
                queue, ring, regions, gpas, lengths, flags, ranges, progress, control, ledger, spare, joins
            )
            if count < 0:
                break
            if count == 0 and _may_rest(ring) != 0:
                more = 0
                break
            if ring[UNDER_WAY] == 0:
                continue
        gone_bytes = ledger[VERIFIED_BYTES] + spare[VERIFIED_BYTES]
        failure = go_on(regions, ranges, progress, control, keep, skip, ledger, spare)
        progress[GONE_BYTES] += ledger[VERIFIED_BYTES] + spare[VERIFIED_BYTES] - gone_bytes
        if failure != 0:
            control[FAILURE] = failure
        if progress[NEXT_RANGE] < progress[RANGE_COUNT]:
            break
        progress[COUNTED_BYTES] = 0
        ring[UNDER_WAY] = 0
        # A length of 0: nothing was written, as every device has it.
        initialised = initialised_bytes(progress) if queue == REPORTING and control[DEVICE_INIT] != 0 else 0
        count = push_used(ring, ring[POPPED_HEAD], initialised)
        if count < 0:
            break
    finish_joined(ring, regions, ranges, progress, control, ledger)
    given_back = ring[USED_NEXT] - ring[USED_PUBLISHED] & INDEX_MASK
    call = publish_used(ring)
    if count < 0:
        return count
    # What was dealt with and accounted for before is named rightly, too.
    named_bytes = max(ledger[REPORTED_BYTES] - named_bytes, control[TURN_BYTES] - control[BYTES_LEFT])
    worth = _worth(named_bytes, _wrong_bytes(ledger) - wrong_bytes, given_back + ring[UNDER_WAY])
    reports = given_back if queue == REPORTING else 0
    failed = _FAILED if control[FAILURE] != 0 else 0
    return int(reports << REPORTS_SHIFT | worth | failed | more | call)


def told(answer: int, control: _Words) -> Turn:
    """What an answer of `take_turn` says.

    Args:
        answer: the answer.
        control: the device's control array, as it is since.

    Raises:
        RingError: the driver broke a rule of the ring; nothing but a reset helps.
    """
    if answer < 0:
        raise RingError(answer)
    return Turn(
        call=bool(answer & CALL),
        more=bool(answer & _MORE),
        in_vain=(answer >> _VAIN_SHIFT & _VAIN_MASK) / _VAIN_UNIT,
        payable=bool(answer & _EMPTY),
        pages=answer >> PAGES_SHIFT & PAGES_MASK,
        reports=answer >> REPORTS_SHIFT,
        failure=control.item(FAILURE) if answer & _FAILED else 0,
    )
