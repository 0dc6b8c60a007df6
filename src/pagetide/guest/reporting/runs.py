"""Runs of unreported free memory, by frame of 2 MiB: what reporting them is worth, and taking those that are worth it.

For zones that keep blocks apart by their marks (buddy.py) and record the unreported ones in the candidate map: so a run
is a row of neighbouring blocks of that map, and its pages' ages add up to what its blocks' sizes times ages do.
"""

from typing import Any

from pagetide.guest.allocator.candidates import map_next
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, TAKEN, isolate_block
from pagetide.guest.allocator.report_costs import hold_begins, hold_ends
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
FRAME_WORTH = 1
FRAME_COLUMNS = 2
"""What is known of a frame: its unreported pages, and what the run in it is worth that is worth most."""

AGE_OLD = 1 << 20
"""The age of what was free before the design began: more than any wait."""

_CALL_HUNDREDTHS = 115
"""What a discarding call costs besides its pages, in hundredths of a page's cost."""


@kernel
def _run_from(words: Any, pages: Any, position: int, end: int, since_start: int) -> tuple[int, int, int]:
    """The run that begins at a position of the candidate map.

    Returns:
        The frame behind it, the next position in the map from there on, and what it is worth: the ages of its pages in
        ticks, added up and divided by what discarding them costs, in pages.
    """
    smallest = words[REPORTING_ORDER]
    first = position << smallest
    behind = first
    ages = 0
    while 0 <= position <= end and position << smallest == behind:
        words[WALKED_BLOCKS] += 1
        state = int(pages[behind * RECORD_WORDS + STATE])
        age = (words[TICK] - (state >> TICK_SHIFT)) & TICK_MASK
        ages += (AGE_OLD if age >= since_start else age) << (state & ORDER_MASK)
        behind += 1 << (state & ORDER_MASK)
        position = map_next(words, position + 1)
    return behind, position, 100 * ages // (100 * (behind - first) + _CALL_HUNDREDTHS)


@kernel
def _last_of_frame(words: Any, frame: int) -> int:
    """The last position of the candidate map in a frame."""
    return ((frame + 1) << FRAME_ORDER) - 1 >> words[REPORTING_ORDER]  # type: ignore[no-any-return]


@kernel
def survey(words: Any, pages: Any, position: int, since_start: int, worths: Any, frames: Any, most: int) -> int:
    """Look at the unreported memory of some frames, by position, under one hold of the zone lock.

    Args:
        words: the zone's words.
        pages: its page records.
        position: in the candidate map, where to begin: at the first block of a frame.
        since_start: ticks since the design began; what is free for as long was free before.
        worths: int64 array; the pages of runs that are worth so many ticks are added to it, all above to its last
            entry.
        frames: int64 array, a row of FRAME_COLUMNS for each frame, which is updated.
        most: how many blocks to look at before the frame is the last one.

    Returns:
        The position at which to go on; -1 when nothing follows.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    walked = words[WALKED_BLOCKS]
    position = map_next(words, position)
    while position >= 0 and words[WALKED_BLOCKS] - walked < most:
        frame = position << words[REPORTING_ORDER] >> FRAME_ORDER
        end = _last_of_frame(words, frame)
        while 0 <= position <= end:
            first = position << words[REPORTING_ORDER]
            behind, position, worth = _run_from(words, pages, position, end, since_start)
            worths[min(worth, worths.shape[0] - 1)] += behind - first
            frames[frame, FRAME_UNREPORTED] += behind - first
            frames[frame, FRAME_WORTH] = max(frames[frame, FRAME_WORTH], worth)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return position


@kernel
def take_runs(words: Any, pages: Any, frame: int, since_start: int, least: int, batch: Any, steps: Any) -> bool:
    """Isolate the runs of a frame that are worth it, under one hold of the zone lock; whether all of them were.

    A run is isolated block by block; what does not fit into the batch stays, and is a run of its own the next time.

    Args:
        words: the zone's words.
        pages: its page records.
        frame: whose runs; a block that is larger than a frame belongs to the one that it begins in.
        since_start: ticks since the design began.
        least: what a run must be worth, in ticks.
        batch: where isolated blocks go, from `steps[FILLED]` on.
        steps: as for `walk_free_list`.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    smallest = words[REPORTING_ORDER]
    end = _last_of_frame(words, frame)
    position = map_next(words, (frame << FRAME_ORDER) + (1 << smallest) - 1 >> smallest)
    all_taken = True
    while 0 <= position <= end and all_taken:
        first = position << smallest
        behind, position, worth = _run_from(words, pages, position, end, since_start)
        if worth >= least:
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
