"""What is broken on purpose in a zone that keeps to migratetypes."""

from pagetide.explorer.broken.variant import Variant
from pagetide.explorer.scenarios import SCENARIOS, SCENARIOS_POOL
from pagetide.explorer.source import Edit

_BY_TYPE = "guest.allocator.lists.by_type"
_MIGRATETYPES = "guest.allocator.lists.migratetypes"

MIGRATETYPES = {
    "claimed, and left on the old lists": Variant(
        "what is free in a pageblock that another type claims stays on the lists of the type before",
        "scan",
        SCENARIOS["types"],
        (
            Edit(
                _MIGRATETYPES,
                "def move_pageblock(",
                "if state & TYPE_MASK == BUDDY:",
                "if state & TYPE_MASK == BUDDY and migratetype == MOVABLE:",
            ),
        ),
        "the zone is not sound: the free list of order 0 and migratetype 0 is not its blocks",
    ),
    "isolated, and its buddy left behind": Variant(
        "what is free beside a page that is isolated stays with the type that had claimed them",
        "pool",
        SCENARIOS_POOL["claimed"],
        (
            Edit(
                _MIGRATETYPES,
                "def make_movable(",
                "move_pageblock(words, pages, first, MOVABLE)",
                "words[words[PAGEBLOCKS] + (first >> PAGEBLOCK_ORDER)] = MOVABLE",
            ),
        ),
        "the zone is not sound: the free list of order 0 and migratetype 0 is not its blocks",
    ),
    "marked by falling back": Variant(
        "a block that is taken from another type's list keeps the mark of a reported one",
        "scan",
        SCENARIOS["types"],
        (
            Edit(
                _BY_TYPE,
                "def _take_others(",
                "take_from(words, pages, pfn, current, order, state)",
                "take_from(words, pages, pfn, current, order, state | REPORTED)",
            ),
        ),
        "a mark outside the lists",
    ),
}
