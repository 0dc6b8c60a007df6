"""One guest's balloon device: what its queues' elements mean (virtio 1.2, 5.5.6).

A turn on a queue is one kernel: it takes elements, discards, reads back and gives the elements back, with no Python in
between. A turn is bounded by a number of elements and by TURN_BYTES_MAX, so that one guest's backlog does not keep
the others waiting; an element is never cut in two.

To serve another queue, write its kernel and add it to `_TURNS`.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.host.discard import RANGE_COLUMNS, discard_element
from pagetide.host.guest_memory import GuestMemory, GuestMemoryError
from pagetide.host.ledger import DISCARDED_BYTES, Ledger
from pagetide.jit import kernel
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_BYTES, CONFIG_POISON_VAL, Feature, Queue, queues
from pagetide.virtio.ring import RingError, avail_ring_bytes, desc_table_bytes, used_ring_bytes
from pagetide.virtio.ring_device import (
    AVAIL_ADDRESS,
    DESC_ADDRESS,
    POPPED_HEAD,
    USED_ADDRESS,
    DeviceRing,
    arm_kick,
    disarm_kick,
    pop_element,
    publish_used,
    push_used,
)

TURN_BYTES_MAX = 256 << 20
"""A turn ends with the element that reaches this many bytes discarded: about 30 ms of punching small pages."""

FEATURES = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.REPORTING
"""What the device offers."""

QUEUES_MAX = len(Queue)
"""As many queues as a balloon can have, whatever is negotiated."""

_SHARE_UNIT = 1 << 20

# The control array.
_VERIFY_SHARE = 0  # in units of 2^-20
_VERIFY_CREDIT = 1  # an element is read back whenever this passes one unit
_FAILURE = 2  # errno of the discarding call that failed last, or 0
_CONTROL_WORDS = 3

_CALL = 1
_MORE = 2

_Words = npt.NDArray[np.int64]


@kernel
def _report_turn(
    ring: _Words,
    regions: _Words,
    gpas: _Words,
    lengths: _Words,
    flags: _Words,
    ranges: _Words,
    control: _Words,
    ledger: _Words,
    budget: int,
) -> int:
    """Serve up to `budget` elements of the reporting queue; _CALL and _MORE as bits, or the ring's error code."""
    full_bytes = ledger[DISCARDED_BYTES] + TURN_BYTES_MAX
    disarm_kick(ring)
    count = 0
    more = _MORE
    served = 0
    while served < budget and ledger[DISCARDED_BYTES] < full_bytes:
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
        control[_VERIFY_CREDIT] += control[_VERIFY_SHARE]
        verify = 1 if control[_VERIFY_CREDIT] >= _SHARE_UNIT else 0
        control[_VERIFY_CREDIT] -= verify * _SHARE_UNIT
        failure = discard_element(regions, gpas, lengths, flags, count, ranges, verify, ledger)
        if failure != 0:
            control[_FAILURE] = failure
        # A length of 0: nothing was written, as every device has it. Later drafts give the length a meaning.
        count = push_used(ring, ring[POPPED_HEAD], 0)
        if count < 0:
            break
    call = publish_used(ring)
    return count if count < 0 else call | more


_TURNS: dict[Queue, Callable[..., int]] = {Queue.REPORTING: _report_turn}
"""The kernel of each queue that is served. Elements of the others stay where they are."""


def write_config(space: bytearray, offset: int, data: bytes) -> None:
    """Take a driver's write to the configuration space: of `actual` and `poison_val`, the rest is not its to change.

    A frontend may write all of the space at once (virtio 1.2, 5.5.4).
    """
    assert offset + len(data) <= len(space) == CONFIG_BYTES
    for place, value in enumerate(data, offset):
        if place // 4 * 4 in {CONFIG_ACTUAL, CONFIG_POISON_VAL}:
            space[place] = value


class QueuePlace(NamedTuple):
    """Where a queue is, as a frontend tells it.

    Attributes:
        size: in descriptors.
        desc_user_address: the descriptor table; like the other two an address of the frontend's.
        avail_user_address: the available ring.
        used_user_address: the used ring.
    """

    size: int
    desc_user_address: int
    avail_user_address: int
    used_user_address: int


class Turn(NamedTuple):
    """What a turn left behind.

    Attributes:
        call: the driver wants to be called.
        more: elements are waiting, and no kick will announce them.
    """

    call: bool
    more: bool


class _Queue:
    """A started queue."""

    def __init__(self, turn: Callable[..., int] | None, place: QueuePlace, ring: DeviceRing) -> None:
        self.turn = turn
        self.place = place
        self.ring = ring
        self.ranges = np.zeros((len(ring.gpas), RANGE_COLUMNS), np.int64)


class BalloonDevice:
    """The device side of one balloon.

    Attributes:
        ledger: the account of what it did.
    """

    ledger: Ledger

    def __init__(self, memory: GuestMemory, ledger: Ledger, *, verify_share: float = 1.0) -> None:
        """Start with no queues.

        Args:
            memory: the guest's memory; tell `memory_changed` when regions move.
            ledger: where to account for what is done.
            verify_share: share of elements whose discarding is read back, evenly spread, the first one included; 0 is
                none of them, 1 all.

        Raises:
            ValueError: the share is not from 0 to 1.
        """
        if not 0 <= verify_share <= 1:
            raise ValueError(f"the share verified must be from 0 to 1, not {verify_share}")
        self.ledger = ledger
        self._memory = memory
        self._queues: dict[int, _Queue] = {}
        self._control = np.zeros(_CONTROL_WORDS, np.int64)
        self._control[_VERIFY_SHARE] = round(verify_share * _SHARE_UNIT)
        self._control[_VERIFY_CREDIT] = _SHARE_UNIT - self._control[_VERIFY_SHARE] if verify_share else 0

    def start_queue(self, index: int, place: QueuePlace, base: int, features: int) -> None:
        """Begin to serve a queue; call the driver once afterwards, for an earlier device may have died before it did.

        Args:
            index: the queue's, dense over the queues that exist with these features.
            place: where it is.
            base: the available ring entry to take first.
            features: what was negotiated.

        Raises:
            GuestMemoryError: a part of the queue is not in the guest's memory.
            ValueError: the size, an address or the base is not one that virtio 1.2, 2.7, allows.
        """
        kinds = queues(features)
        kind = kinds[index] if index < len(kinds) else None
        desc_address, avail_address, used_address = self._addresses(place)
        ring = DeviceRing(
            place.size,
            desc_address=desc_address,
            avail_address=avail_address,
            used_address=used_address,
            event_idx=bool(features & Feature.EVENT_IDX),
            indirect=bool(features & Feature.INDIRECT_DESC),
            base=base,
        )
        self._queues[index] = _Queue(None if kind is None else _TURNS.get(kind), place, ring)

    def stop_queue(self, index: int) -> int | None:
        """Serve a queue no more; the available ring entry to take next, or None if it was not started."""
        queue = self._queues.pop(index, None)
        return None if queue is None else queue.ring.last_avail

    def memory_changed(self) -> None:
        """Find the started queues again where the guest's memory is now.

        Raises:
            GuestMemoryError: a part of a started queue is not in it; no queue is served then.
        """
        try:
            for queue in self._queues.values():
                words = queue.ring.state
                words[DESC_ADDRESS], words[AVAIL_ADDRESS], words[USED_ADDRESS] = self._addresses(queue.place)
        except GuestMemoryError:
            self._queues.clear()
            raise

    def process(self, index: int, budget: int) -> Turn:
        """Serve up to `budget` elements of a queue.

        Raises:
            RingError: the driver broke a rule of the ring; nothing but a reset helps.
        """
        assert budget > 0
        queue = self._queues.get(index)
        if queue is None or queue.turn is None:
            return Turn(call=False, more=False)
        ring = queue.ring
        answer = queue.turn(
            ring.state,
            self._memory.region_map.table,
            ring.gpas,
            ring.lengths,
            ring.flags,
            queue.ranges,
            self._control,
            self.ledger.words,
            budget,
        )
        if answer < 0:
            raise RingError(answer)
        return Turn(bool(answer & _CALL), bool(answer & _MORE))

    def take_failure(self) -> str | None:
        """Why the last discarding call that failed did so; None if none has since this was asked."""
        number, self._control[_FAILURE] = int(self._control[_FAILURE]), 0
        return f"fallocate: {os.strerror(number)}" if number else None

    def _addresses(self, place: QueuePlace) -> tuple[int, int, int]:
        try:
            return (
                self._memory.address_of(place.desc_user_address, desc_table_bytes(place.size)),
                self._memory.address_of(place.avail_user_address, avail_ring_bytes(place.size)),
                self._memory.address_of(place.used_user_address, used_ring_bytes(place.size)),
            )
        except GuestMemoryError as error:
            raise GuestMemoryError(f"a queue is not in the guest's memory: {error}") from error
