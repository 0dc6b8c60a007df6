"""What a vCPU's own lock guards is one step with it."""

from collections import defaultdict
from typing import Any

from pagetide.explorer.ground import Ram, pausing_ground
from pagetide.explorer.source import LOCK, TOUCH, World
from pagetide.guest.allocator.pcp import list_of
from pagetide.guest.allocator.zone_layout import (
    ALLOCATED,
    END,
    LIST_WORDS,
    PCP,
    PCP_COUNT,
    PCP_LISTS,
    PCP_RINGS,
    PCP_ROOM,
    RECORD_WORDS,
    STATE,
    TYPE_WORDS,
    vcpu_base,
)


def test_a_block_from_a_list_that_has_one_takes_a_lock_and_no_other_step() -> None:
    """Nothing else sees the list's words meanwhile, whichever migratetype's it is; the page's record all may see."""
    base = vcpu_base(0)
    lists = base + TYPE_WORDS
    words: defaultdict[int, int] = defaultdict(int, {
        lists + PCP_LISTS + LIST_WORDS * list_of(0) + END: 1, lists + PCP_RINGS: 1000, lists + PCP_ROOM: 4,
        1000: 3, base + PCP_COUNT: 1,
    })  # fmt: skip
    pages: defaultdict[int, int] = defaultdict(int, {3 * RECORD_WORDS + STATE: PCP})
    world = World(pausing_ground(2, Ram(8, queues=1), lambda: world.control, finely=False), (), pausing=True)
    (pcp,) = world.load("guest.allocator.pcp")
    found: list[Any] = []

    def taking() -> Any:
        found.append((yield from pcp._take(words, pages, base, lists, 0, ALLOCATED)))

    assert [pause.kind for pause in taking()] == [LOCK, TOUCH]
    assert found == [3]
    assert words[base + PCP_COUNT] == 0
    assert pages[3 * RECORD_WORDS + STATE] == ALLOCATED
