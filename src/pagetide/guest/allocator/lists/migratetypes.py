"""Migratetypes: pageblocks that are kept for one kind of allocation, so that what cannot be moved lies together.

Follows Linux's mm/page_alloc.c (6.12, where a free block is always on the list of its pageblock's type). Of its types
there are MIGRATE_MOVABLE, MIGRATE_UNMOVABLE and MIGRATE_RECLAIMABLE; a zone begins with all of its pageblocks movable
(mm/mm_init.c, `memmap_init_range`). A zone keeps to them only if it was made so; else PAGEBLOCKS is 0.

Divergences: nothing is reserved for atomic allocations (MIGRATE_HIGHATOMIC), falling back boosts no watermark, since
nobody reclaims, and what lies on per-CPU lists is neither free nor movable to whoever counts a pageblock, as there.
Claiming a pageblock is not priced in simulated runs: an allocation that does has the price of any other.

All is under the zone lock.
"""

from typing import Any

from pagetide.guest.allocator.lists.free_list import link, list_head, list_heads_of, unlink
from pagetide.guest.allocator.zone_layout import (
    ALLOCATED,
    BALLOON,
    BUDDY,
    HELD,
    KEEP_APART,
    KEEP_MARKS,
    MIGRATETYPE_SHIFT,
    MIGRATETYPES,
    MOVABLE,
    NEXT,
    NR_PAGES,
    ORDER_MASK,
    PAGEBLOCKS,
    PREVIOUS,
    RECLAIMABLE,
    RECORD_WORDS,
    REPORTED,
    STATE,
    TYPE_MASK,
    UNMOVABLE,
)
from pagetide.jit import inline_kernel, kernel
from pagetide.units import PAGEBLOCK_ORDER

_PAGEBLOCK_PAGES = 1 << PAGEBLOCK_ORDER
_SUM = MOVABLE + UNMOVABLE + RECLAIMABLE
"""What is left of it without two of the three is the third."""


@inline_kernel
def nr_migratetypes(words: Any) -> int:
    """How many lists of each order the zone has."""
    return MIGRATETYPES if words[PAGEBLOCKS] != 0 else 1


@inline_kernel
def migratetype_of(words: Any, pfn: int) -> int:
    """The type of a frame's pageblock, in a zone that keeps to them (`get_pfnblock_migratetype`)."""
    return words[words[PAGEBLOCKS] + (pfn >> PAGEBLOCK_ORDER)]  # type: ignore[no-any-return]


@kernel
def fallback(migratetype: int, turn: int) -> int:
    """Whose blocks this type takes when its own are used up, first and second (`fallbacks`)."""
    last = UNMOVABLE if migratetype == MOVABLE else MOVABLE
    return last if turn > 0 else _SUM - migratetype - last


@kernel
def set_migratetype(words: Any, pfn: int, order: int, migratetype: int) -> None:
    """Give the pageblocks of a block of at least one to a type (`change_pageblock_range`)."""
    first = words[PAGEBLOCKS] + (pfn >> PAGEBLOCK_ORDER)
    for pageblock in range(first, first + (1 << (order - PAGEBLOCK_ORDER))):
        words[pageblock] = migratetype


@kernel
def heads_for(words: Any, pfn: int, order: int, freed: int) -> int:
    """The lists, as of `list_heads_of`, for a block that has this freed frame.

    All its pageblocks are given to that one's type: those of a free block are of one type (`__free_one_page`).
    """
    if order > PAGEBLOCK_ORDER:
        set_migratetype(words, pfn, order, migratetype_of(words, freed))
    return list_heads_of(words, pfn)


@kernel
def claim_pageblock(words: Any, pages: Any, pfn: int, migratetype: int) -> bool:
    """Give a free block's pageblock and all that is free in it to a type, if it has enough of that type's.

    That is if half of its pages are free or of the type, as far as can be known: what is allocated and not movable may
    be of either of the other two, and counts where the pageblock was movable (`steal_suitable_fallback`).
    """
    first = pfn & ~(_PAGEBLOCK_PAGES - 1)
    if first + _PAGEBLOCK_PAGES > words[NR_PAGES]:
        return False
    free_pages = movable_pages = 0
    place = first
    while place < first + _PAGEBLOCK_PAGES:
        state = int(pages[place * RECORD_WORDS + STATE])
        nr_pages = 1 << (state & ORDER_MASK)
        if state & TYPE_MASK == BUDDY:
            free_pages += nr_pages
        elif _is_movable(state):
            movable_pages += nr_pages
        place += nr_pages
    alike_pages = 0
    if migratetype == MOVABLE:
        alike_pages = movable_pages
    elif migratetype_of(words, pfn) == MOVABLE:
        alike_pages = _PAGEBLOCK_PAGES - free_pages - movable_pages
    if free_pages + alike_pages < _PAGEBLOCK_PAGES // 2:
        return False
    move_pageblock(words, pages, first, migratetype)
    return True


@inline_kernel
def _is_movable(state: int) -> bool:
    """Whether compaction could move what is allocated here."""
    kind = state & TYPE_MASK
    return kind in (BALLOON, HELD) or (kind == ALLOCATED and state >> MIGRATETYPE_SHIFT == MOVABLE)


@kernel
def move_pageblock(words: Any, pages: Any, first: int, migratetype: int) -> None:
    """Give a pageblock and all that is free in it to a type (`__move_freepages_block`).

    What is free goes to the tails of its new lists; with KEEP_APART what is unreported has to go to their heads.
    """
    keeps_apart = words[KEEP_MARKS] == KEEP_APART
    pfn = first
    while pfn < min(first + _PAGEBLOCK_PAGES, words[NR_PAGES]):
        state = int(pages[pfn * RECORD_WORDS + STATE])
        if state & TYPE_MASK == BUDDY:
            unlink(pages, pfn)
            head = list_head(words, state & ORDER_MASK, migratetype)
            if keeps_apart and not state & REPORTED:
                link(pages, head, pfn, int(pages[head * RECORD_WORDS + NEXT]))
            else:
                link(pages, int(pages[head * RECORD_WORDS + PREVIOUS]), pfn, head)
        pfn += 1 << (state & ORDER_MASK) if state & TYPE_MASK else 1
    words[words[PAGEBLOCKS] + (first >> PAGEBLOCK_ORDER)] = migratetype


@kernel
def make_movable(words: Any, pages: Any, pfn: int, order: int) -> None:
    """A block of at least half a pageblock was isolated: what it is part of is movable now (`__isolate_free_page`)."""
    first = pfn & ~(_PAGEBLOCK_PAGES - 1)
    while first < pfn + (1 << order):
        if migratetype_of(words, first) != MOVABLE:
            move_pageblock(words, pages, first, MOVABLE)
        first += _PAGEBLOCK_PAGES
