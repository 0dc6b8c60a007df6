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
from pagetide.host.device.inflate import PFNS_MAX, inflated_ranges, read_pfns
from pagetide.host.memory.discard import punch_next
from pagetide.host.memory.huge_pages import close_books, take_back
from pagetide.host.memory.ledger import (
    ACCOUNT_WORDS,
    MALFORMED,
    REPORTED_BYTES,
    SKIPPED_DEVICE_READABLE,
    SKIPPED_OUT_OF_RANGE,
    SKIPPED_UNALIGNED,
    VERIFIED_BYTES,
)
from pagetide.host.memory.ranges import RANGE_COLUMNS, RANGE_END, RANGE_START, reported_ranges, skip_bytes
from pagetide.jit import kernel
from pagetide.memory.region_map import WHOLE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Queue
from pagetide.virtio.split_ring.device import (
    POPPED_HEAD,
    UNDER_WAY,
    DeviceRing,
    arm_kick,
    disarm_kick,
    pop_element,
    publish_used,
    push_used,
)
from pagetide.virtio.split_ring.ring import RingError

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
CONTROL_WORDS = 8

# How far the element under way has come, an array a queue.
NEXT_RANGE = 0  # the range to go on with
RANGE_COUNT = 1
VERIFY = 2  # whether it is read back
DEALT_BYTES = 3  # how much of it was dealt with
COUNTED_BYTES = 4  # how much of it was accounted for when it was served before
NAMED_BYTES = 5  # what its descriptors name
GONE_BYTES = 6  # how much of it was verified gone
PROGRESS_WORDS = 7

# A turn's answer, in one int: four bits, the share in vain, how many pages were named, and how many reports served.
_CALL = 1
_MORE = 2
_FAILED = 4
_EMPTY = 8
_VAIN_SHIFT = 4
_VAIN_UNIT = 1 << 10
_VAIN_MASK = 2 * _VAIN_UNIT - 1
_PAGES_SHIFT = 15
_PAGES_MASK = 511
_REPORTS_SHIFT = 24

_REPORTING = int(Queue.REPORTING)
_INFLATE = int(Queue.INFLATE)

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
        worth |= min(named_bytes // PAGE_SIZE_BYTES, PAID_PAGES) << _PAGES_SHIFT
    if elements == 0 and named_bytes == 0 and wrong_bytes == 0:
        worth |= _EMPTY
    return int(worth)


@kernel
def _begin_element(
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
    if queue == _REPORTING:
        kept = reported_ranges(regions, gpas, lengths, flags, count, ranges, account)
    elif queue == _INFLATE:
        kept = inflated_ranges(regions, gpas, lengths, flags, count, ranges, account)
    else:
        malformed = account[MALFORMED]
        usable = read_pfns(regions, gpas, lengths, flags, count, ranges, account)
        take_back(regions, ranges, usable)
        if account[MALFORMED] != malformed:
            close_books(regions)  # what it takes back is not known
        account[REPORTED_BYTES] += usable * PAGE_SIZE_BYTES
    verify: int = 0
    if queue in (_REPORTING, _INFLATE):
        control[VERIFY_CREDIT] += control[VERIFY_SHARE]
        verify = 1 if control[VERIFY_CREDIT] >= SHARE_UNIT else 0
        control[VERIFY_CREDIT] -= verify * SHARE_UNIT
    progress[NEXT_RANGE] = 0
    progress[RANGE_COUNT] = kept
    progress[VERIFY] = verify
    progress[DEALT_BYTES] = 0
    progress[GONE_BYTES] = 0
    progress[NAMED_BYTES] = 0
    for index in range(count):
        progress[NAMED_BYTES] += lengths[index]
    ring[UNDER_WAY] = 1


@kernel
def _go_on(
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
def _initialised_bytes(progress: _Words) -> int:
    """The used length of a report that is done, with DEVICE_INIT_REPORTED: all of it if all is gone, otherwise 0.

    Memory that was verified gone reads as zeros until the guest writes to it. The draft (virtio-spec issue 244, May
    2026) has the device tell so by the used length, which has 32 bits.
    """
    named_bytes = progress[NAMED_BYTES]
    return int(named_bytes) if progress[GONE_BYTES] == named_bytes and named_bytes < 1 << 32 else 0


@kernel
def _take_turn(
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
    named_bytes = ledger[REPORTED_BYTES]
    wrong_bytes = _wrong_bytes(ledger)
    keep = 1 if queue == _INFLATE else 0
    failed = 0
    disarm_kick(ring)
    count = 0
    more = _MORE
    served = 0
    given_back = 0
    while served < budget and control[BYTES_LEFT] > 0 and control[PUNCHES_LEFT] > 0:
        served += 1  # also if nothing is there: the driver may take back what it announced, and so on for ever
        if ring[UNDER_WAY] == 0:
            count = pop_element(ring, regions, gpas, lengths, flags)
            if count < 0:
                break
            if count == 0:
                if arm_kick(ring) == 0:
                    more = 0
                    break
                disarm_kick(ring)
                continue
            _begin_element(queue, ring, regions, gpas, lengths, flags, count, ranges, progress, control, ledger, spare)
        gone_bytes = ledger[VERIFIED_BYTES] + spare[VERIFIED_BYTES]
        failure = _go_on(regions, ranges, progress, control, keep, skip, ledger, spare)
        progress[GONE_BYTES] += ledger[VERIFIED_BYTES] + spare[VERIFIED_BYTES] - gone_bytes
        if failure != 0:
            control[FAILURE] = failure
            failed = _FAILED
        if progress[NEXT_RANGE] < progress[RANGE_COUNT]:
            break
        progress[COUNTED_BYTES] = 0
        ring[UNDER_WAY] = 0
        # A length of 0: nothing was written, as every device has it.
        initialised = _initialised_bytes(progress) if queue == _REPORTING and control[DEVICE_INIT] != 0 else 0
        count = push_used(ring, ring[POPPED_HEAD], initialised)
        if count < 0:
            break
        given_back += 1
    call = publish_used(ring)
    if count < 0:
        return count
    # What was dealt with and accounted for before is named rightly, too.
    named_bytes = max(ledger[REPORTED_BYTES] - named_bytes, control[TURN_BYTES] - control[BYTES_LEFT])
    worth = _worth(named_bytes, _wrong_bytes(ledger) - wrong_bytes, given_back + ring[UNDER_WAY])
    reports = given_back if queue == _REPORTING else 0
    return int(reports << _REPORTS_SHIFT | worth | failed | more | call)


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


class BlockQueue:
    """A started inflate, deflate or reporting queue.

    Attributes:
        progress: how far the element under way has come, if `ring.state[UNDER_WAY]` says that there is one.
        ranges: what of it is still to be discarded.
    """

    def __init__(
        self, kind: Queue, ring: DeviceRing, control: _Words, account: _Words, *, counted_bytes: int = 0
    ) -> None:
        """Serve a ring.

        Args:
            kind: which of the three it is.
            ring: its device half.
            control: the device's control array.
            account: the queue's account in the ledger.
            counted_bytes: how much of the element that comes first was dealt with, and accounted for, before.
        """
        assert kind in {Queue.INFLATE, Queue.DEFLATE, Queue.REPORTING}
        self.ring = ring
        self._kind = int(kind)
        self._control = control
        self._account = account
        self._spare = np.zeros(ACCOUNT_WORDS, np.int64)
        self.progress = np.zeros(PROGRESS_WORDS, np.int64)
        self.progress[COUNTED_BYTES] = counted_bytes
        self.ranges = np.zeros((max(len(ring.gpas), PFNS_MAX), RANGE_COLUMNS), np.int64)

    @property
    def next_avail(self) -> int:
        """The available ring entry at which another device would go on."""
        return self.ring.next_avail

    @property
    def counted_bytes(self) -> int:
        """How much of the element that is to be served next, whole, was dealt with and accounted for."""
        dealt_bytes = self.progress[DEALT_BYTES] if self.ring.state[UNDER_WAY] else 0
        return int(max(dealt_bytes, self.progress[COUNTED_BYTES]))

    def process(self, regions: _Words, budget: int, skip: int) -> Turn:
        """Serve up to `budget` elements, or a part of one.

        Args:
            regions: the region map's table; it may be another each time.
            budget: most elements.
            skip: 0, or the word of the account that counts what is not to be discarded.

        Raises:
            RingError: the driver broke a rule of the ring; nothing but a reset helps.
        """
        ring = self.ring
        answer = _take_turn(
            self._kind,
            ring.state,
            regions,
            ring.gpas,
            ring.lengths,
            ring.flags,
            self.ranges,
            self.progress,
            self._control,
            self._account,
            self._spare,
            budget,
            skip,
        )
        if answer < 0:
            raise RingError(answer)
        return Turn(
            call=bool(answer & _CALL),
            more=bool(answer & _MORE),
            in_vain=(answer >> _VAIN_SHIFT & _VAIN_MASK) / _VAIN_UNIT,
            payable=bool(answer & _EMPTY),
            pages=answer >> _PAGES_SHIFT & _PAGES_MASK,
            reports=answer >> _REPORTS_SHIFT,
            failure=self._control.item(FAILURE) if answer & _FAILED else 0,
        )
