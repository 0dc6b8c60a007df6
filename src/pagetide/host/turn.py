"""A turn on a queue of blocks or pages, as one kernel: take elements, discard, read back, give the elements back.

There is no Python in between. A turn is bounded by a number of elements, by TURN_BYTES_MAX and by TURN_PUNCHES_MAX, so
that one guest's backlog does not keep the others waiting; an element is never cut in two.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.host.discard import discard_element
from pagetide.host.inflate import PFNS_MAX, inflate_element, read_pfns
from pagetide.host.ledger import (
    DISCARDED_BYTES,
    PUNCHES,
    REPORTED_BYTES,
    REPORTS,
    SKIPPED_DEVICE_READABLE,
    SKIPPED_OUT_OF_RANGE,
    SKIPPED_UNALIGNED,
)
from pagetide.host.ranges import RANGE_COLUMNS
from pagetide.jit import kernel
from pagetide.virtio.balloon import Queue
from pagetide.virtio.ring import RingError
from pagetide.virtio.ring_device import (
    POPPED_HEAD,
    DeviceRing,
    arm_kick,
    disarm_kick,
    pop_element,
    publish_used,
    push_used,
)

TURN_BYTES_MAX = 256 << 20
"""A turn ends with the element that reaches this many bytes discarded: about 30 ms of punching small pages."""

TURN_PUNCHES_MAX = 4096
"""A turn ends with the element that reaches this many discarding calls: some 15 ms, if each is for a single page."""

SHARE_UNIT = 1 << 20

# The control array, one for all queues of a device.
VERIFY_SHARE = 0  # in units of 1 / SHARE_UNIT
VERIFY_CREDIT = 1  # an element is read back whenever this passes one unit
FAILURE = 2  # errno of the discarding call that failed last
CONTROL_WORDS = 3

# A turn's answer, in one int: three bits, the share in vain, and how many reports were served.
_CALL = 1
_MORE = 2
_FAILED = 4
_VAIN_SHIFT = 3
_VAIN_UNIT = 1 << 10
_VAIN_MASK = 2 * _VAIN_UNIT - 1
_REPORTS_SHIFT = 14

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
        reports: how many elements of the reporting queue were served.
        failure: errno of the discarding call that failed last, or 0.
    """

    call: bool
    more: bool
    config_changed: bool = False
    in_vain: float = 1.0
    reports: int = 0
    failure: int = 0


NOTHING = Turn(call=False, more=False)
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
def _take_turn(
    queue: int,
    ring: _Words,
    regions: _Words,
    gpas: _Words,
    lengths: _Words,
    flags: _Words,
    ranges: _Words,
    control: _Words,
    ledger: _Words,
    budget: int,
    skip: int,
) -> int:
    """Serve up to `budget` elements; the answer as above, or the ring's error code."""
    full_bytes = ledger[DISCARDED_BYTES] + TURN_BYTES_MAX
    full_punches = ledger[PUNCHES] + TURN_PUNCHES_MAX
    reports = ledger[REPORTS]
    named_bytes = ledger[REPORTED_BYTES]
    wrong_bytes = _wrong_bytes(ledger)
    failed = 0
    disarm_kick(ring)
    count = 0
    more = _MORE
    served = 0
    while served < budget and ledger[DISCARDED_BYTES] < full_bytes and ledger[PUNCHES] < full_punches:
        count = pop_element(ring, regions, gpas, lengths, flags)
        if count < 0:
            break
        if count == 0:
            if arm_kick(ring) == 0:
                more = 0
                break
            disarm_kick(ring)
            served += 1  # the driver may take back what it announced, and so on for ever
            continue
        served += 1
        if queue in (_REPORTING, _INFLATE):
            control[VERIFY_CREDIT] += control[VERIFY_SHARE]
            verify = 1 if control[VERIFY_CREDIT] >= SHARE_UNIT else 0
            control[VERIFY_CREDIT] -= verify * SHARE_UNIT
            if queue == _REPORTING:
                failure = discard_element(regions, gpas, lengths, flags, count, ranges, verify, skip, ledger)
            else:
                failure = inflate_element(regions, gpas, lengths, flags, count, ranges, verify, skip, ledger)
            if failure != 0:
                control[FAILURE] = failure
                failed = _FAILED
        else:
            read_pfns(regions, gpas, lengths, flags, count, ranges, ledger)
        # A length of 0: nothing was written, as every device has it. Later drafts give the length a meaning.
        count = push_used(ring, ring[POPPED_HEAD], 0)
        if count < 0:
            break
    call = publish_used(ring)
    if count < 0:
        return count
    in_vain = _in_vain(ledger[REPORTED_BYTES] - named_bytes, _wrong_bytes(ledger) - wrong_bytes)
    reports = ledger[REPORTS] - reports if queue == _REPORTING else 0
    return int(reports << _REPORTS_SHIFT | in_vain << _VAIN_SHIFT | failed | more | call)


class BlockQueue:
    """A started inflate, deflate or reporting queue."""

    def __init__(self, kind: Queue, ring: DeviceRing, control: _Words, account: _Words) -> None:
        """Serve a ring.

        Args:
            kind: which of the three it is.
            ring: its device half.
            control: the device's control array.
            account: the queue's account in the ledger.
        """
        assert kind in {Queue.INFLATE, Queue.DEFLATE, Queue.REPORTING}
        self.ring = ring
        self._kind = int(kind)
        self._control = control
        self._account = account
        self._ranges = np.zeros((max(len(ring.gpas), PFNS_MAX), RANGE_COLUMNS), np.int64)

    @property
    def next_avail(self) -> int:
        """The available ring entry at which another device would go on."""
        return self.ring.next_avail

    def process(self, regions: _Words, budget: int, skip: int) -> Turn:
        """Serve up to `budget` elements.

        Args:
            regions: the region map's table.
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
            self._ranges,
            self._control,
            self._account,
            budget,
            skip,
        )
        if answer < 0:
            raise RingError(answer)
        return Turn(
            call=bool(answer & _CALL),
            more=bool(answer & _MORE),
            in_vain=(answer >> _VAIN_SHIFT & _VAIN_MASK) / _VAIN_UNIT,
            reports=answer >> _REPORTS_SHIFT,
            failure=self._control.item(FAILURE) if answer & _FAILED else 0,
        )
