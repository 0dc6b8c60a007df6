"""Runs of unreported free memory, by frame of 2 MiB: how old they are, and taking those that are old enough.

For zones that keep blocks apart by their marks (buddy.py) and record the unreported ones in the candidate map: so a run
is a row of neighbouring blocks of that map, and its pages' ages add up to what its blocks' sizes times ages do.
"""

from typing import Any

from pagetide.guest.allocator.candidates import map_next
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, TAKEN, isolate_block
from pagetide.guest.allocator.lock_hold import hold_begins, hold_ends
from pagetide.guest.allocator.zone_layout import (
    ORDER_MASK,
    RECORD_WORDS,
    REPORTING_ORDER,
    STATE,
    TICK,
    TICK_MASK,
    TICK_SHIFT,
    WALKED_BLOCKS,
    ZONE_LOCK,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel
from pagetide.memory.frame_table import FRAME_ORDER

FRAME_UNREPORTED = 0
FRAME_OLDEST = 1
FRAME_COLUMNS = 2
"""What is known of a frame: its unreported pages, and the age in ticks of the oldest block of them."""

AGE_OLD = 1 << 20
"""The age of what was free before the design began: more than any wait."""

_CALL_HUNDREDTHS = 115
"""What a discarding call costs besides its pages, in hundredths of a page's cost."""


@kernel
def _age(words: Any, pages: Any, pfn: int, since_start: int) -> int:
    """Ticks for which a free block has been free, or AGE_OLD if that is as long as the design has run."""
    age = (words[TICK] - (pages[pfn * RECORD_WORDS + STATE] >> TICK_SHIFT)) & TICK_MASK
    return AGE_OLD if age >= since_start else age


@kernel
def survey(words: Any, pages: Any, position: int, since_start: int, ages: Any, frames: Any, places: int) -> int:
    """Look at unreported free blocks, by position, under one hold of the zone lock.

    Args:
        words: the zone's words.
        pages: its page records.
        position: in the candidate map, where to begin.
        since_start: ticks since the design began.
        ages: int64 array; the pages of each age in ticks are added to it, all older ones to its last entry.
        frames: int64 array, a row of FRAME_COLUMNS for each frame, which is updated.
        places: how many blocks to look at.

    Returns:
        The position at which to go on; -1 when nothing follows.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    smallest = words[REPORTING_ORDER]
    position = map_next(words, position)
    while position >= 0 and places > 0:
        places -= 1
        words[WALKED_BLOCKS] += 1
        pfn = position << smallest
        order = pages[pfn * RECORD_WORDS + STATE] & ORDER_MASK
        age = _age(words, pages, pfn, since_start)
        ages[min(age, ages.shape[0] - 1)] += 1 << order
        frame = pfn >> FRAME_ORDER
        frames[frame, FRAME_UNREPORTED] += 1 << order
        frames[frame, FRAME_OLDEST] = max(frames[frame, FRAME_OLDEST], age)
        position = map_next(words, position + 1)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return position


@kernel
def take_due_runs(words: Any, pages: Any, frame: int, since_start: int, due_ticks: int, batch: Any, steps: Any) -> bool:
    """Isolate the runs of a frame that are due, under one hold of the zone lock; whether all of them were.

    A run of n pages is due when its pages' ages add up to (n + 1.15) times `due_ticks`. It is isolated block by block;
    what does not fit into the batch stays, and is a run of its own the next time.

    Args:
        words: the zone's words.
        pages: its page records.
        frame: whose runs; a block that is larger than a frame belongs to the one that it begins in.
        since_start: ticks since the design began.
        due_ticks: how old its pages must be for a large run to be due.
        batch: where isolated blocks go, from `steps[FILLED]` on.
        steps: as for `walk_free_list`.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    smallest = words[REPORTING_ORDER]
    end = ((frame + 1) << FRAME_ORDER) - 1 >> smallest
    position = map_next(words, (frame << FRAME_ORDER) + (1 << smallest) - 1 >> smallest)
    all_taken = True
    while 0 <= position <= end and all_taken:
        first = position << smallest
        behind = first
        pages_ages = 0
        while 0 <= position <= end and position << smallest == behind:
            words[WALKED_BLOCKS] += 1
            order = pages[behind * RECORD_WORDS + STATE] & ORDER_MASK
            pages_ages += _age(words, pages, behind, since_start) << order
            behind += 1 << order
            position = map_next(words, position + 1)
        if 100 * pages_ages >= (100 * (behind - first) + _CALL_HUNDREDTHS) * due_ticks:
            all_taken = _take_run(words, pages, first, behind, batch, steps)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return all_taken


@kernel
def _take_run(words: Any, pages: Any, pfn: int, end: int, batch: Any, steps: Any) -> bool:
    while pfn < end:
        order = pages[pfn * RECORD_WORDS + STATE] & ORDER_MASK
        if steps[FILLED] >= batch.shape[0]:
            return False
        if isolate_block(words, pages, pfn, order) != TAKEN:
            steps[BLOCKED] = 1
            return False
        batch[steps[FILLED]] = pfn << 4 | order
        steps[FILLED] += 1
        pfn += 1 << order
    return True
