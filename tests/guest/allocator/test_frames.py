"""The allocator and its frame table: what is offered, what is claimed, and what a host that is busy keeps from it."""

from typing import Any

import numpy as np
import pytest

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import FRAME_TABLE, FREE_PAGES, NR_FREE
from pagetide.guest.reporting.designs.shared import Shared
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.host.device.taking import begin_batch, end_batch
from pagetide.memory.frame_table import FRAMES, FREE, IN_USE, INSTALLS, STATE_MASK, TAKEN, TAKING

NO_WATERMARKS = Watermarks(0, 0, 0)


class Offering:
    """A zone of so many 4 MiB blocks whose table is kept, and a host that takes by hand; single pages have lists."""

    def __init__(self, blocks: int = 4, pcp_orders: tuple[int, ...] = (0,), **settings: Any) -> None:
        self.zone = Zone(blocks << 10, watermarks=NO_WATERMARKS, pcp_batch=4, pcp_high=(8, 8), pcp_orders=pcp_orders)
        self.design = Shared(self.zone, ReportingSettings(order=9, **settings))
        self.design.start(0.0)
        self.frames = 2 * blocks
        self._picked, self._count = np.zeros(64, np.int64), np.zeros(1, np.int64)

    @property
    def states(self) -> list[int]:
        return (self.zone.frame_table[FRAMES : FRAMES + self.frames] & STATE_MASK).tolist()  # type: ignore[no-any-return]

    def begin(self, first: int = 0, count: int = 64) -> int:
        """Make frames TAKING; how many."""
        begin_batch(self.zone.frame_table, first, self.frames, self._picked[:count], self._count)
        return int(self._count[0])

    def end(self) -> None:
        end_batch(self.zone.frame_table, self._picked, int(self._count[0]))


def test_what_is_free_at_the_start_is_offered() -> None:
    """All frames that are free when the design starts, and no other."""
    zone = Zone(4096, watermarks=NO_WATERMARKS, pcp_batch=4, pcp_high=(8, 8))
    held = zone.allocate(3)
    Shared(zone, ReportingSettings()).start(0.0)
    assert held == 0
    assert (zone.frame_table[FRAMES : FRAMES + 8] & STATE_MASK).tolist() == [IN_USE, *[FREE] * 7]
    zone.check()


def test_a_frame_is_offered_when_its_last_page_comes_back() -> None:
    """One page that is allocated, or on a per-CPU list, keeps its frame in use."""
    offering = Offering(1)
    pages = [offering.zone.allocate(0) for _ in range(4)]
    assert offering.states == [IN_USE, FREE]
    for pfn in pages:
        assert pfn is not None
        offering.zone.free(pfn, 0)
    assert offering.states == [IN_USE, FREE], "the pages are on the per-CPU list"
    offering.zone.drain_pcp(0)
    assert offering.states == [FREE, FREE]
    offering.zone.check()


@pytest.mark.parametrize(("order", "frames"), [(0, 1), (8, 1), (9, 1), (10, 2)])
def test_an_allocation_installs_what_was_taken(order: int, frames: int) -> None:
    """A frame that the host has taken is in use again, and counted, as soon as part of it is allocated."""
    offering = Offering(1)
    offering.begin()
    offering.end()
    assert offering.states == [TAKEN, TAKEN]
    pfn = offering.zone.allocate(order)
    assert offering.states == [IN_USE] * frames + [TAKEN] * (2 - frames)
    assert offering.zone.frame_table[INSTALLS] == frames
    assert pfn is not None
    offering.zone.free(pfn, order)
    offering.zone.drain_pcp(0)
    assert offering.states == [FREE] * frames + [TAKEN] * (2 - frames)
    offering.zone.check()


@pytest.mark.parametrize("order", [0, 5, 9])
def test_an_allocation_takes_another_frame_than_the_host(order: int) -> None:
    """While the host is discarding frames every other one can be had, the upper halves of split blocks included."""
    offering = Offering(2)
    first = int(offering.zone.free_list(10)[0]) >> 9
    assert offering.begin(first, 1) == 1
    got = set()
    while (pfn := offering.zone.allocate(order)) is not None:
        got |= set(range(pfn, pfn + (1 << order)))
    assert len(got) == 3 << 9, "three frames of four"
    assert first not in {pfn >> 9 for pfn in got}
    assert offering.states.count(TAKING) == 1
    offering.zone.check()
    offering.end()
    assert offering.zone.allocate(order) is not None, "what is taken can be had again"
    offering.zone.check()


def test_a_block_of_two_frames_is_claimed_whole_or_not_at_all() -> None:
    """If the host is discarding its second frame, the first one stays as it was."""
    offering = Offering(1)
    assert offering.begin(1, 1) == 1
    assert offering.zone.allocate(10) is None
    assert offering.states == [FREE, TAKING]
    offering.zone.check()
    offering.end()
    assert offering.zone.allocate(10) == 0


def test_with_all_that_is_free_being_taken_an_allocation_fails() -> None:
    """It fails without waiting, changes nothing, and succeeds once the host is done."""
    offering = Offering(2)
    assert offering.begin() == 4
    assert [offering.zone.allocate(order) for order in (0, 4, 9, 10)] == [None] * 4
    assert offering.zone.words[FREE_PAGES] == 2048
    assert offering.zone.words[NR_FREE + 10] == 2
    offering.zone.check()
    offering.end()
    assert offering.zone.allocate(10) is not None


def test_switched_off_in_the_middle_of_a_batch_it_still_keeps_away() -> None:
    """What the host is discarding at that moment is not handed out before it is done; everything else is."""
    offering = Offering(2)
    assert offering.begin(0, 2) == 2
    offering.design.stop()
    assert offering.states == [TAKING, TAKING, IN_USE, IN_USE]
    assert offering.zone.allocate(10) == 1024
    assert offering.zone.allocate(0) is None
    offering.zone.check()
    offering.end()
    assert offering.zone.allocate(10) == 0
    assert offering.begin() == 0
    offering.zone.free(0, 10)
    offering.zone.free(1024, 10)
    assert offering.states == [IN_USE] * 4, "nothing is offered any more"
    offering.design.start(0.0)
    assert offering.states == [FREE] * 4
    offering.design.stop()
    assert offering.zone.words[FRAME_TABLE] == 0
    offering.zone.check()


def test_a_frame_on_a_per_cpu_list_is_in_use() -> None:
    """The second block of a refill is not offered while it waits on its list, and is offered once that is drained."""
    offering = Offering(2, pcp_orders=(9,))
    pfn = offering.zone.allocate(9)
    assert offering.states == [IN_USE, IN_USE, FREE, FREE]
    assert pfn is not None
    offering.zone.free(pfn, 9)
    offering.zone.drain_pcp(0)
    assert offering.states == [FREE] * 4
    offering.zone.check()


def test_what_was_freed_lately_is_left_alone() -> None:
    """With `cool_s` a frame is taken only after it was free for that long by the guest's clock."""
    offering = Offering(1, cool_s=10.0)
    offering.zone.tick(5.0)
    assert offering.begin() == 0
    pfn = offering.zone.allocate(9)
    offering.zone.tick(20.0)
    assert pfn == 0
    offering.zone.free(pfn, 9)
    assert offering.begin() == 1
    offering.end()
    assert offering.states == [FREE, TAKEN]
    offering.zone.tick(30.2)
    assert offering.begin() == 1
