"""Runs of unreported free memory, by frame of 2 MiB: what reporting them is worth, and taking those that are worth it.

For zones that keep blocks apart by their marks (buddy.py) and record the unreported ones in the candidate map: so a run
is a row of neighbouring blocks of that map, and its pages' ages add up to what its blocks' sizes times ages do.
"""

from typing import Any

from pagetide.guest.allocator.candidates import map_next
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, PASS_OVER_MAX, TAKEN, isolate_block
from pagetide.guest.allocator.report_costs import hold_begins, hold_ends
from pagetide.guest.allocator.request import end_pass, request, unreported_pages
from pagetide.guest.allocator.zone_layout import (
    ISOLATED_PAGES,
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

FRAME = 0
FRAME_UNREPORTED = 1
FRAME_WORTH = 2
FRAME_COLUMNS = 3
"""What is known of a frame with unreported memory: which it is, its unreported pages, and what its best run is worth.

A row for each such frame, by position, in an array that has room for all.
"""

SEEN = 0
LEAST = 1
WAITING = 2
NEXT_FRAME = 3
NEXT_WORTH = 4
LEFT_PAGES = 5
PLAN_WORDS = 6
"""What a pass is about.

Frames with unreported memory, what a run must be worth, frames to report, and those done. Once the pass has ended: what
the runs are worth that come next, and how many pages are unreported.
"""

AGE_OLD = 1 << 20
"""The age of what was free before the design began: more than any wait."""

_CALL_HUNDREDTHS = 115
"""What a discarding call costs besides its pages, in hundredths of a page's cost."""

_PLACE_BITS = 40
_LAST_PLACE = (1 << _PLACE_BITS) - 1


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
def _survey(words: Any, pages: Any, position: int, since_start: int, worths: Any, frames: Any, plan: Any) -> int:
    """Look at the unreported memory of some frames, by position, under one bounded hold of the zone lock.

    It begins at a position of the candidate map that is the first block of a frame, and adds to what `plan_pass` says.

    Returns:
        The position at which to go on; -1 when nothing follows.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    walked = words[WALKED_BLOCKS]
    position = map_next(words, position)
    while position >= 0 and words[WALKED_BLOCKS] - walked < PASS_OVER_MAX:
        frame = position << words[REPORTING_ORDER] >> FRAME_ORDER
        end = _last_of_frame(words, frame)
        unreported = most = 0
        while 0 <= position <= end:
            first = position << words[REPORTING_ORDER]
            behind, position, worth = _run_from(words, pages, position, end, since_start)
            worths[min(worth, worths.shape[0] - 1)] += behind - first
            unreported += behind - first
            most = max(most, worth)
        seen = plan[SEEN]
        frames[seen, FRAME], frames[seen, FRAME_UNREPORTED], frames[seen, FRAME_WORTH] = frame, unreported, most
        plan[SEEN] = seen + 1
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return position


@kernel
def plan_pass(
    words: Any, pages: Any, since_start: int, keep: int, least: int, worths: Any, frames: Any, order: Any, plan: Any
) -> None:
    """Look at all that is unreported, and choose the frames with runs that are to be reported.

    All of it is one call, since the worker wakes up to find nothing of it in the processor's caches.

    Args:
        words: the zone's words.
        pages: its page records.
        since_start: ticks since the design began; what is free for as long was free before.
        keep: how many pages are to stay unreported; what is worth most is reported until no more is left.
        least: what a run must be worth in any case, in ticks.
        worths: int64 array, overwritten with the pages of runs that are worth so many ticks, all above in its last
            entry: what is worth that is reported in any case.
        frames: int64 array with room for a row of FRAME_COLUMNS for each frame, overwritten with those that are seen.
        order: int64 array as long, overwritten with the frames to report, those with most unreported memory first.
        plan: int64 array of PLAN_WORDS, overwritten.
    """
    worths[:] = 0
    plan[:] = 0
    position = 0
    while position >= 0:
        position = _survey(words, pages, position, since_start, worths, frames, plan)
    left = 0
    for row in range(plan[SEEN]):
        left += frames[row, FRAME_UNREPORTED]
    worth = worths.shape[0] - 1
    left -= worths[worth]
    while left > keep:
        worth -= 1
        left -= worths[worth]
    plan[LEAST] = min(max(worth, least), worths.shape[0] - 1)
    _choose(frames, order, plan)


@kernel
def _choose(frames: Any, order: Any, plan: Any) -> None:
    """Put the frames with runs that are worth it into `order`, those with most unreported memory first (Shell sort)."""
    waiting = 0
    for row in range(plan[SEEN]):
        if frames[row, FRAME_WORTH] >= plan[LEAST]:
            order[waiting] = frames[row, FRAME_UNREPORTED] << _PLACE_BITS | _LAST_PLACE - frames[row, FRAME]
            waiting += 1
    gap = waiting >> 1
    while gap > 0:
        for index in range(gap, waiting):
            moved = order[index]
            place = index
            while place >= gap and order[place - gap] < moved:
                order[place] = order[place - gap]
                place -= gap
            order[place] = moved
        gap >>= 1
    for index in range(waiting):
        order[index] = _LAST_PLACE - (order[index] & _LAST_PLACE)
    plan[WAITING] = waiting


@kernel
def take_frames(
    words: Any,
    pages: Any,
    since_start: int,
    keep: int,
    most: int,
    busy: int,
    order: Any,
    plan: Any,
    batch: Any,
    steps: Any,
) -> None:
    """Isolate the runs of the frames that wait, a frame under each hold of the zone lock, until the batch is full.

    Args:
        words: the zone's words.
        pages: its page records.
        since_start: ticks since the design began.
        keep: how many pages are to stay unreported.
        most: no further frame is begun once so many pages are isolated.
        busy: what a run must be worth, in ticks, where no more than `keep` is unreported.
        order: the frames, from `plan[NEXT_FRAME]` on.
        plan: as of `plan_pass`.
        batch: where isolated blocks go, from `steps[FILLED]` on.
        steps: as for `walk_free_list`.
    """
    while plan[NEXT_FRAME] < plan[WAITING] and words[ISOLATED_PAGES] < most and steps[BLOCKED] == 0:
        least = busy
        if unreported_pages(words) > keep:
            least = plan[LEAST]
        if not _take_runs(words, pages, order[plan[NEXT_FRAME]], since_start, least, batch, steps):
            break
        plan[NEXT_FRAME] += 1


@kernel
def _take_runs(words: Any, pages: Any, frame: int, since_start: int, least: int, batch: Any, steps: Any) -> bool:
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


@kernel
def end_plan(words: Any, worths: Any, enough: int, plan: Any) -> bool:
    """The pass ended; whether another was requested meanwhile.

    Where memory stays unreported there is one at its time, so it counts as requested: no free is to wake the worker.

    Args:
        words: the zone's words.
        worths: as `plan_pass` left it.
        enough: how many pages make a pass; half of what stayed do, if that is less.
        plan: as `plan_pass` left it; `plan[NEXT_WORTH]` is then what so many of those that stayed are worth at least.
    """
    again = end_pass(words)
    plan[LEFT_PAGES] = unreported_pages(words)
    if plan[LEFT_PAGES] > 0:
        request(words)
    worth = plan[LEAST] if plan[WAITING] > 0 else worths.shape[0]
    found = 0
    enough = min(enough, plan[LEFT_PAGES] - plan[LEFT_PAGES] // 2)
    while worth > 0 and found < enough:
        worth -= 1
        found += worths[worth]
    plan[NEXT_WORTH] = worth
    return again
