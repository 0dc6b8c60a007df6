"""A zone at rest, looked at from outside: its blocks, its lists, and whether everything that it counts is so.

Nothing here is needed to run a guest. Nobody may be at work in the zone meanwhile.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.candidates import map_next
from pagetide.guest.allocator.lists.migratetypes import migratetype_of, nr_migratetypes
from pagetide.guest.allocator.pcp import has_list, list_of, lists_base, place_of
from pagetide.guest.allocator.zone_layout import (
    BALLOON,
    BALLOON_PAGES,
    BUDDY,
    END,
    FRAME_TABLE,
    FREE_PAGES,
    HELD,
    HINT_COUNT,
    HINTS,
    ISOLATED,
    ISOLATED_BLOCKS,
    ISOLATED_PAGES,
    KEEP_APART,
    KEEP_MARKS,
    LIST_WORDS,
    MOVABLE,
    NEXT,
    NR_FREE,
    NR_PAGES,
    NR_REPORTED,
    NR_VCPUS,
    OLDEST,
    ORDER_MASK,
    PAGEBLOCKS,
    PCP,
    PCP_COUNT,
    PCP_LISTS,
    PREVIOUS,
    RECORD_HINT_ARRAYS,
    RECORD_HINT_MAP,
    RECORD_UNREPORTED,
    RECORD_WORDS,
    RECORDING,
    REPORTED,
    REPORTED_PAGES,
    REPORTING_ORDER,
    SPARE,
    SPARES,
    STATE,
    TYPE_MASK,
    vcpu_base,
)
from pagetide.memory.frame_table import FRAME_ORDER, FRAME_PAGES, FRAMES, OPEN, STATE_MASK
from pagetide.units import ORDER_MAX, ORDERS, PAGEBLOCK_ORDER

Words = npt.NDArray[np.int64]
Pages = npt.NDArray[np.uint32]


class Block(NamedTuple):
    """A block found in the arena: its first frame, its order, what it is, and whether it has the mark `reported`.

    It is one of the states under TYPE_MASK in zone_layout.py: BUDDY, ALLOCATED, PCP, ISOLATED, SPARE, BALLOON or HELD.
    """

    pfn: int
    order: int
    kind: int
    reported: bool


def blocks(words: Words, pages: Pages) -> Iterator[Block]:
    """Every block, by position; the zone must be at rest. Isolated and per-CPU pages are blocks too.

    Raises:
        AssertionError: a frame belongs to no block, or to two.
    """
    nr_pages = int(words[NR_PAGES])
    states = pages[: nr_pages * RECORD_WORDS].reshape(-1, RECORD_WORDS)[:, STATE]
    pfn = 0
    while pfn < nr_pages:
        state = int(states[pfn])
        order = state & ORDER_MASK
        assert state & TYPE_MASK, f"frame {pfn} is in no block"
        assert not np.any(states[pfn + 1 : pfn + (1 << order)]), f"the block at frame {pfn} overlaps another"
        yield Block(pfn, order, state & TYPE_MASK, bool(state & REPORTED))
        pfn += 1 << order
    assert pfn == nr_pages, "the last block crosses the end of the zone"


def free_list(words: Words, pages: Pages, order: int, migratetype: int) -> list[int]:
    """The frames on a free list, head first; the zone must be at rest."""
    head = int(words[NR_PAGES]) + order + ORDERS * migratetype
    found: list[int] = []
    before, pfn = head, int(pages[head * RECORD_WORDS + NEXT])
    while pfn != head:
        assert int(pages[pfn * RECORD_WORDS + PREVIOUS]) == before, f"broken link before frame {pfn}"
        assert len(found) < head, f"the list of order {order} is a loop"
        found.append(pfn)
        before, pfn = pfn, int(pages[pfn * RECORD_WORDS + NEXT])
    return found


def recount(words: Words, pages: Pages, frame_table: Words) -> None:
    """Recount everything: pages, lists, marks, the frame table, the map of candidates and hints.

    Raises:
        AssertionError: a page is not in exactly one place, or a counter differs from the recount.
    """
    found = list(blocks(words, pages))
    buddies = [block for block in found if block.kind == BUDDY]
    isolated = [block for block in found if block.kind == ISOLATED]
    for order in range(ORDERS):
        here = {block.pfn: block for block in buddies if block.order == order}
        for migratetype in range(int(nr_migratetypes(words))):
            own = {pfn for pfn in here if _migratetypes_in(words, here[pfn]) == {migratetype}}
            assert sorted(free_list(words, pages, order, migratetype)) == sorted(own), (
                f"the free list of order {order} and migratetype {migratetype} is not its blocks"
            )
        assert words[NR_FREE + order] == len(here), f"NR_FREE of order {order}"
        assert words[NR_REPORTED + order] == sum(b.reported for b in here.values()), f"NR_REPORTED of order {order}"
        for pfn, block in here.items():
            buddy = here.get(pfn ^ (1 << order))
            apart = words[KEEP_MARKS] == KEEP_APART and buddy and buddy.reported != block.reported
            assert order == ORDER_MAX or not buddy or apart, f"frame {pfn} should have merged"
    assert words[FREE_PAGES] == sum(1 << block.order for block in buddies), "FREE_PAGES"
    assert words[REPORTED_PAGES] == sum(1 << block.order for block in buddies if block.reported), "REPORTED_PAGES"
    assert words[ISOLATED_PAGES] == sum(1 << block.order for block in isolated), "ISOLATED_PAGES"
    assert words[ISOLATED_BLOCKS] == len(isolated), "ISOLATED_BLOCKS"
    assert words[BALLOON_PAGES] == sum(block.kind in (BALLOON, HELD) for block in found), "BALLOON_PAGES"
    assert words[SPARES] << words[REPORTING_ORDER] == sum(1 << b.order for b in found if b.kind == SPARE), "SPARES"
    assert not any(b.reported for b in found if b.kind not in (BUDDY, PCP)), "a mark outside the lists"
    _check_frames(
        words,
        frame_table,
        {b.pfn + i for b in buddies for i in range(0, 1 << b.order, FRAME_PAGES) if b.order >= FRAME_ORDER},
    )
    _check_candidates(words, {b.pfn for b in buddies if b.order >= words[REPORTING_ORDER] and not b.reported})
    _check_listed(words, [(block.pfn, block.order) for block in found if block.kind == PCP])


def _migratetypes_in(words: Words, block: Block) -> set[int]:
    """Of the pageblocks that a block is in."""
    if not words[PAGEBLOCKS]:
        return {MOVABLE}
    last = block.pfn + (1 << block.order) - 1
    return {int(migratetype_of(words, pfn)) for pfn in (*range(block.pfn, last, 1 << PAGEBLOCK_ORDER), last)}


def _check_frames(words: Words, frame_table: Words, free: set[int]) -> None:
    if words[FRAME_TABLE]:
        states = frame_table[FRAMES : FRAMES + (int(words[NR_PAGES]) >> FRAME_ORDER)] & STATE_MASK
        offered = {int(frame) << FRAME_ORDER for frame in np.flatnonzero(states)}
        assert offered <= free, "the frame table offers what is not free"
        assert offered == free or not frame_table[OPEN], "the frame table misses what is free"


def _check_candidates(words: Words, unreported: set[int]) -> None:
    marked = candidates(words)
    if words[RECORDING] == RECORD_UNREPORTED:
        assert marked == sorted(pfn >> int(words[REPORTING_ORDER]) for pfn in unreported), "the candidate map"
    if words[RECORDING] == RECORD_HINT_MAP:
        assert words[HINTS] == len(marked), "HINTS"
    if words[RECORDING] == RECORD_HINT_ARRAYS:
        counts = [words[vcpu_base(vcpu) + HINT_COUNT] for vcpu in range(int(words[NR_VCPUS]))]
        assert words[HINTS] == sum(counts), "HINTS"


def candidates(words: Words) -> list[int]:
    """The positions in the candidate map, in order; the zone must be at rest."""
    found: list[int] = []
    position = int(map_next(words, 0))
    while position >= 0:
        found.append(position)
        position = int(map_next(words, position + 1))
    return found


def pcp_listed(words: Words, vcpu: int, order: int, migratetype: int) -> list[int]:
    """The first frames of the blocks on a vCPU's list of an order, the next to be allocated last."""
    base, number = int(lists_base(vcpu_base(vcpu), migratetype)), int(list_of(order))
    place = base + PCP_LISTS + LIST_WORDS * number
    listed = range(int(words[place + OLDEST]), int(words[place + END]))
    return [int(words[int(place_of(words, base, number, index))]) for index in listed]


def _check_listed(words: Words, found: list[tuple[int, int]]) -> None:
    orders = [order for order in range(ORDERS) if has_list(words, order)]
    listed: list[tuple[int, int]] = []
    for vcpu in range(int(words[NR_VCPUS])):
        pages = 0
        for order in orders:
            for migratetype in range(int(nr_migratetypes(words))):
                own = [(pfn, order) for pfn in pcp_listed(words, vcpu, order, migratetype)]
                listed += own
                pages += len(own) << order
        assert words[vcpu_base(vcpu) + PCP_COUNT] == pages, "PCP_COUNT"
    assert sorted(listed) == found, "the per-CPU lists"
