"""The host takes free frames from the table that a guest shares with it (the `shared` design; frame_table.py).

A pass goes through the table once. Batch by batch, what is free and old enough is made TAKING, discarded, neighbours in
one call, read back, and made TAKEN. Nothing is held meanwhile: a host that is stopped between two of these steps keeps
one batch of frames from the guest, and no vCPU waits for it.

The ledger has it as reports: a batch is a report, a frame a block. The guest's table decides only which of the guest's
frames are discarded; a frame outside its memory regions is skipped, and counted.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.atomics import atomic_compare_exchange, atomic_load, atomic_store
from pagetide.host.memory.discard import punch_ranges
from pagetide.host.memory.ledger import (
    ACCOUNT_WORDS,
    BLOCKS,
    REPORT_ACCOUNT,
    REPORTS,
    SKIPPED_OUT_OF_RANGE,
    Ledger,
)
from pagetide.host.memory.ranges import RANGE_COLUMNS, RANGE_END, RANGE_REGION, RANGE_START, skip_bytes
from pagetide.jit import kernel
from pagetide.memory.frame_states import REFUSED, take_abandoned, take_begun, take_ended
from pagetide.memory.frame_table import (
    BEGUN,
    COOL_TICKS,
    ENDED,
    FRAME_SHIFT,
    FRAMES,
    GUEST_TICK,
    TAKING_MAX,
    TAKING_NOW,
)
from pagetide.memory.region_map import RegionMap, find_cover

_FRAME_BYTES = 1 << FRAME_SHIFT

_Words = npt.NDArray[np.int64]


@kernel
def begin_batch(table: _Words, first: int, end: int, picked: _Words, count: _Words) -> int:
    """Make frames TAKING, from one on, until the batch is full.

    Args:
        table: the frame table.
        first: the frame to begin at.
        end: the frame to end before.
        picked: int64 array as long as a batch may be; receives the frames, by position.
        count: int64 array of one; receives how many there are.

    Returns:
        The frame at which to go on.
    """
    tick = table[GUEST_TICK]
    cool_ticks = table[COOL_TICKS]
    taken = 0
    frame = first
    while frame < end and taken < picked.shape[0]:
        old = table[FRAMES + frame]
        new = take_begun(old, tick, cool_ticks)
        if new != REFUSED:
            if taken == 0 and table[BEGUN] == table[ENDED]:
                atomic_store(table, BEGUN, table[BEGUN] + 1)
            if atomic_compare_exchange(table, FRAMES + frame, old, new) == old:
                picked[taken] = frame
                taken += 1
                atomic_store(table, TAKING_NOW, taken)
        frame += 1
    table[TAKING_MAX] = max(table[TAKING_MAX], taken)
    count[0] = taken
    return frame


@kernel
def end_batch(table: _Words, picked: _Words, count: int) -> None:
    """Make the frames of a batch TAKEN."""
    for index in range(count):
        frame = picked[index]
        old = atomic_load(table, FRAMES + frame)
        new = take_ended(old)
        if new != REFUSED:
            atomic_compare_exchange(table, FRAMES + frame, old, new)
    atomic_store(table, TAKING_NOW, 0)
    atomic_store(table, ENDED, table[BEGUN])


@kernel
def discard_batch(regions: _Words, picked: _Words, count: int, ranges: _Words, verify: int, ledger: _Words) -> int:
    """Discard the frames of a batch, and account for them; arguments as for `begin_batch` and `punch_ranges`.

    Returns:
        0, or the errno of the last discarding call that failed.
    """
    kept = 0
    for index in range(count):
        gpa = picked[index] << FRAME_SHIFT
        row = find_cover(regions, gpa, _FRAME_BYTES)
        if row < 0:
            skip_bytes(_FRAME_BYTES, SKIPPED_OUT_OF_RANGE, ledger)
            continue
        ranges[kept, RANGE_START] = gpa
        ranges[kept, RANGE_END] = gpa + _FRAME_BYTES
        ranges[kept, RANGE_REGION] = row
        kept += 1
    ledger[REPORTS] += 1
    ledger[BLOCKS] += count
    return punch_ranges(regions, ranges, kept, verify, ledger)


@kernel
def take_batch(
    table: _Words,
    first: int,
    end: int,
    regions: _Words,
    picked: _Words,
    count: _Words,
    ranges: _Words,
    verify: int,
    ledger: _Words,
) -> int:
    """Take one batch whole: begin it, discard it, end it; the frame at which to go on. Arguments as for those."""
    following = begin_batch(table, first, end, picked, count)
    if count[0] > 0:
        discard_batch(regions, picked, count[0], ranges, verify, ledger)
    end_batch(table, picked, count[0])
    return following


@kernel
def recover(table: _Words, end: int) -> None:
    """Offer again what another host, which is gone, was discarding; nobody else may be taking from the table."""
    for frame in range(end):
        old = atomic_load(table, FRAMES + frame)
        new = take_abandoned(old)
        if new != REFUSED:
            atomic_compare_exchange(table, FRAMES + frame, old, new)
    atomic_store(table, TAKING_NOW, 0)
    atomic_store(table, ENDED, table[BEGUN])


class Begun(NamedTuple):
    """A batch that was begun.

    Attributes:
        frames: how many frames are TAKING; with none the pass is over.
        looked: how many it looked at.
    """

    frames: int
    looked: int


class FrameTaker:
    """Takes the free frames of one guest, a pass at a time."""

    def __init__(
        self,
        table: _Words,
        frames: int,
        regions: RegionMap,
        ledger: Ledger,
        *,
        capacity: int,
        verify_share: float = 1.0,
    ) -> None:
        """Begin with a table that another host may have left in the middle of a batch.

        Args:
            table: the frame table, int64, mapped from the guest.
            frames: how many frames it has.
            regions: the guest's memory.
            ledger: where to account for what is taken.
            capacity: frames that are TAKING at most at once.
            verify_share: share of the batches whose discarding is read back, from 0 to 1.
        """
        assert 0 <= frames <= len(table) - FRAMES
        assert capacity >= 1
        self._table, self._frames, self._regions = table, frames, regions
        self._account = ledger.words[REPORT_ACCOUNT]
        assert len(self._account) == ACCOUNT_WORDS
        self._verify_share, self._verify_credit = verify_share, 0.0
        self._picked, self._count = np.zeros(capacity, np.int64), np.zeros(1, np.int64)
        self._ranges = np.zeros((capacity, RANGE_COLUMNS), np.int64)
        self._next = 0
        recover(table, frames)

    def take(self) -> int | None:
        """Take the next batch of a pass; how many frames it had, or None when the pass is over."""
        verify = int(self._verify_credit + self._verify_share >= 1)
        self._next = int(
            take_batch(
                self._table,
                self._next,
                self._frames,
                self._regions.table,
                self._picked,
                self._count,
                self._ranges,
                verify,
                self._account,
            )
        )
        return self._counted(verify) or None

    def begin(self) -> Begun:
        """Begin the next batch of a pass and discard it; `end` ends it: for who counts the time in between."""
        verify, first = int(self._verify_credit + self._verify_share >= 1), self._next
        self._next = int(begin_batch(self._table, first, self._frames, self._picked, self._count))
        looked = self._next - first
        if self._count[0]:
            discard_batch(self._regions.table, self._picked, int(self._count[0]), self._ranges, verify, self._account)
        return Begun(self._counted(verify), looked)

    def end(self) -> None:
        """End the batch that was begun."""
        end_batch(self._table, self._picked, int(self._count[0]))

    def _counted(self, verify: int) -> int:
        """How many frames the batch has; without any the next one is of another pass."""
        count = int(self._count[0])
        if count:
            self._verify_credit += self._verify_share - verify
        else:
            self._next = 0
        return count
