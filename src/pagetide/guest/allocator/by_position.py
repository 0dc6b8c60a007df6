"""Isolating free blocks by position: a sweep over all frames, and what the free path recorded of them.

Each of these isolates into `batch[steps[FILLED]]` and on, under one bounded hold of the zone lock; `steps` is the
account that isolate.py describes.
"""

from typing import Any

from pagetide.guest.allocator.candidates import map_clear, map_next, map_set
from pagetide.guest.allocator.isolate import (
    BLOCKED,
    FILLED,
    LEFT,
    LIST_DONE,
    PASS_OVER_MAX,
    TAKEN,
    YOUNG,
    is_young,
    isolate_block,
)
from pagetide.guest.allocator.report_costs import hold_begins, hold_ends
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    HINT_BLOCKS,
    HINT_COUNT,
    HINTS,
    NR_PAGES,
    ORDER_MASK,
    RECORD_HINT_MAP,
    RECORD_WORDS,
    RECORDING,
    REPORTED,
    REPORTING_ORDER,
    STATE,
    TYPE_MASK,
    VCPU_WORDS,
    WALKED_BLOCKS,
    ZONE_LOCK,
    vcpu_base,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel
from pagetide.units import ORDERS

_VCPU_0 = vcpu_base(0)


@kernel
def block_at(words: Any, pages: Any, pfn: int) -> int:
    """The free block of at least the reporting order that a frame is in, packed, or -1; the caller holds the lock."""
    for order in range(words[REPORTING_ORDER], ORDERS):
        head = pfn & ~((1 << order) - 1)
        if pages[head * RECORD_WORDS + STATE] & (TYPE_MASK | ORDER_MASK) == BUDDY | order:
            return head << 4 | order
    return -1


@kernel
def isolate_at(words: Any, pages: Any, pfn: int, batch: Any, steps: Any) -> int:
    """Isolate the unreported free block that a frame is in, if there is one, into `batch[steps[FILLED]]`.

    Returns:
        LIST_DONE when it was isolated or nothing is to be done here, else WATERMARK or CAPPED; a block that is too
        young is counted in YOUNG. The caller holds the zone lock.
    """
    words[WALKED_BLOCKS] += 1
    block = block_at(words, pages, pfn)
    if block < 0:
        return LIST_DONE
    state = int(pages[(block >> 4) * RECORD_WORDS + STATE])
    if state & REPORTED:
        return LIST_DONE
    if is_young(words, state):
        steps[YOUNG] += 1
        return LIST_DONE
    outcome = isolate_block(words, pages, block >> 4, block & ORDER_MASK)
    if outcome == TAKEN:
        batch[steps[FILLED]] = block
        steps[FILLED] += 1
    else:
        steps[BLOCKED] = 1
    return outcome


@kernel
def sweep(words: Any, pages: Any, start: int, batch: Any, steps: Any) -> int:
    """Isolate unreported free blocks by position, under one hold of the zone lock.

    Args:
        words: the zone's words.
        pages: its page records.
        start: the frame to begin at.
        batch: where isolated blocks go, from `steps[FILLED]` on.
        steps: as for `walk_free_list`; LEFT is how many places it may look at.

    Returns:
        The frame at which to go on; the end of the zone when nothing is left. It stops short when the batch is full,
        LEFT is used up, or a block cannot be isolated now.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    pfn = start
    while pfn < words[NR_PAGES] and steps[LEFT] > 0 and steps[FILLED] < batch.shape[0]:
        steps[LEFT] -= 1
        if isolate_at(words, pages, pfn, batch, steps) != LIST_DONE:
            break
        pfn = _after(words, pages, pfn)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return pfn


@kernel
def _after(words: Any, pages: Any, pfn: int) -> int:
    """The next frame that may begin a block of at least the reporting order."""
    smallest = 1 << words[REPORTING_ORDER]
    head = pfn & ~(smallest - 1)
    state = pages[head * RECORD_WORDS + STATE]
    length = 1
    if state & TYPE_MASK:
        length = 1 << (state & ORDER_MASK)
    return head + max(smallest, length)  # type: ignore[no-any-return]


@kernel
def record_free_blocks(words: Any, pages: Any, start: int, places: int) -> int:
    """Record the unreported free blocks of the next places in the candidate map; the frame at which to go on."""
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    pfn = start
    while pfn < words[NR_PAGES] and places > 0:
        places -= 1
        block = block_at(words, pages, pfn)
        if block >= 0 and not pages[(block >> 4) * RECORD_WORDS + STATE] & REPORTED:
            fresh = map_set(words, (block >> 4) >> words[REPORTING_ORDER])
            if fresh and words[RECORDING] == RECORD_HINT_MAP:
                words[HINTS] += 1
        pfn = _after(words, pages, pfn)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return pfn


def record_all_free(zone: Zone) -> None:
    """Record every unreported free block in the candidate map, a bounded number under each hold of the lock."""
    pfn = 0
    while pfn < zone.words[NR_PAGES]:
        pfn = record_free_blocks(zone.words, zone.pages, pfn, PASS_OVER_MAX)


@kernel
def take_candidates(words: Any, pages: Any, position: int, batch: Any, steps: Any) -> int:
    """Isolate what the candidate map names, from a position on.

    Returns:
        The position at which to go on, or -1 when nothing follows. It stops short when the batch is full, LEFT is
        used up, or a block cannot be isolated now, which then stays in the map.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    order = words[REPORTING_ORDER]
    position = map_next(words, position)
    while position >= 0 and steps[LEFT] > 0 and steps[FILLED] < batch.shape[0]:
        steps[LEFT] -= 1
        young = steps[YOUNG]
        if isolate_at(words, pages, position << order, batch, steps) != LIST_DONE:
            break
        if words[RECORDING] == RECORD_HINT_MAP and steps[YOUNG] == young:
            map_clear(words, position)
            words[HINTS] -= 1
        position = map_next(words, position + 1)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return position


@kernel
def take_hints(words: Any, pages: Any, vcpu: int, batch: Any, steps: Any) -> int:
    """Isolate what a vCPU's array of hints names, oldest first; how many hints were used up.

    Hints whose blocks cannot be isolated now, or are too young, stay in the array.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    base = _VCPU_0 + vcpu * VCPU_WORDS
    kept = 0
    index = 0
    outcome = TAKEN
    while index < words[base + HINT_COUNT]:  # a spare that takes a block's place may add hints
        hint = words[base + HINT_BLOCKS + index]
        index += 1
        young = steps[YOUNG]
        if outcome == TAKEN and steps[FILLED] < batch.shape[0]:
            outcome = isolate_at(words, pages, hint >> 4, batch, steps)
            if outcome == TAKEN and steps[YOUNG] == young:
                continue
        words[base + HINT_BLOCKS + kept] = hint
        kept += 1
    words[base + HINT_COUNT] = kept
    words[HINTS] -= index - kept
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return index - kept
