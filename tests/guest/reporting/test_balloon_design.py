"""The balloon: pages go in and come out as the host wants, and at once when an allocation would fail."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pagetide.guest.allocator.balloon_pages import STEPS_A_HOLD
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import BALLOON, BALLOON_PAGES, FREE_PAGES, HELD
from pagetide.guest.reporting.designs.balloon import PFNS_A_BATCH, Balloon
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.virtio.balloon import Queue

NR_PAGES = 4096


class Ballooned:
    """A zone with a balloon, in virtual time, and a host that believes what it is told, in the order in which it is."""

    def __init__(self, min_pages: int = 0, nr_pages: int = NR_PAGES) -> None:
        self.zone = Zone(nr_pages, watermarks=Watermarks(min_pages, min_pages, min_pages), pcp_batch=4, pcp_high=(8, 8))
        self.balloon = Balloon(self.zone, ReportingSettings(delay_s=1.0))
        self.now_s = 0.0
        self.told: set[int] = set()
        self.batches: list[tuple[Queue, int]] = []
        self.balloon.start(self.now_s)

    def step(self, works: bool = True) -> bool:
        """One batch at the current time; whether there was one."""
        batch = self.balloon.next_batch(self.now_s)
        if batch is None:
            return False
        pfns = [int(packed) >> 4 for packed in batch]
        assert 0 < len(pfns) <= PFNS_A_BATCH
        assert len(set(pfns)) == len(pfns)
        queue = self.balloon.queue
        if works:
            self.batches.append((queue, len(pfns)))
            if queue is Queue.INFLATE:
                assert not self.told & set(pfns), "no page goes in twice"
                self.told |= set(pfns)
            else:
                assert self.told >= set(pfns), "what comes out was in it"
                self.told -= set(pfns)
        self.balloon.done(batch, works, self.now_s)
        return True

    def settle(self, wanted: int) -> None:
        """The host wants this many, and the clock goes on until that is done."""
        self.balloon.wanted_pages = wanted
        assert self.balloon.due_s is not None
        self.now_s = max(self.now_s, self.balloon.due_s)
        while self.step():
            pass

    @property
    def in_balloon(self) -> set[int]:
        return {block.pfn for block in self.zone.blocks() if block.kind in (BALLOON, HELD)}


@pytest.fixture
def guest() -> Ballooned:
    """16 MiB, all free."""
    return Ballooned()


def test_inflates_to_what_the_host_wants(guest: Ballooned) -> None:
    """In buffers of 256 pages, each of which leaves the allocator and is not handed back."""
    guest.settle(700)
    assert guest.batches == [(Queue.INFLATE, 256), (Queue.INFLATE, 256), (Queue.INFLATE, 188)]
    assert guest.told == guest.in_balloon
    assert guest.balloon.held_pages == 700
    assert guest.zone.words[FREE_PAGES] == NR_PAGES - 700
    guest.zone.check()


def test_deflates_when_the_host_wants_less(guest: Ballooned) -> None:
    """The host is told first, then the pages are free again; with none wanted nothing is left in it."""
    guest.settle(700)
    guest.settle(500)
    assert guest.batches[3:] == [(Queue.DEFLATE, 200)]
    assert guest.told == guest.in_balloon
    guest.settle(0)
    assert guest.told == set()
    assert guest.zone.words[FREE_PAGES] == NR_PAGES
    guest.zone.check()


def test_waits_for_the_delay(guest: Ballooned) -> None:
    """It looks at what the host wants when the delay is over, not before, and again after another."""
    guest.balloon.wanted_pages = 10
    assert guest.balloon.next_batch(0.99) is None
    guest.settle(10)
    assert guest.balloon.due_s == guest.now_s + 1.0
    guest.balloon.wanted_pages = 20
    assert guest.balloon.next_batch(guest.now_s + 0.5) is None


def test_out_of_puff() -> None:
    """It takes no page that would break the min watermark, and tries again later."""
    guest = Ballooned(min_pages=96)
    guest.settle(NR_PAGES)
    assert guest.balloon.held_pages == NR_PAGES - 96
    guest.settle(NR_PAGES)
    assert guest.balloon.held_pages == NR_PAGES - 96


def test_an_allocation_that_fails_gets_pages_back_at_once(guest: Ballooned) -> None:
    """They are free before the host hears of them; it does before any page goes in again."""
    guest.settle(NR_PAGES)
    assert guest.zone.allocate(0) is None
    assert guest.balloon.deflate_on_oom(0) == 256
    assert guest.balloon.reliefs == 1
    assert guest.zone.allocate(0) is not None
    assert len(guest.told) == NR_PAGES
    guest.batches.clear()
    guest.settle(NR_PAGES)
    assert guest.batches[0] == (Queue.DEFLATE, 256), "told first"
    assert all(queue is Queue.DEFLATE for queue, _ in guest.batches), "the pass takes nothing that was just given"
    assert guest.told == guest.in_balloon
    guest.settle(NR_PAGES)
    assert guest.batches[-1][0] is Queue.INFLATE
    assert guest.told == guest.in_balloon
    guest.zone.check()


def test_a_large_allocation_gets_what_it_needs(guest: Ballooned) -> None:
    """With all memory in the balloon a block of 4 MiB can be had after one try, since pages went in by position."""
    guest.settle(NR_PAGES)
    assert guest.zone.allocate(10) is None
    assert guest.balloon.deflate_on_oom(10) == 1024
    assert guest.zone.allocate(10) is not None


def test_pages_come_out_by_position(guest: Ballooned) -> None:
    """Whatever the order in which they went in: what comes out merges into whole blocks again."""
    held = [guest.zone.allocate(3) for _ in range(NR_PAGES // 8)]
    for pfn in [*held[::2], *held[1::2]]:
        assert pfn is not None
        guest.zone.free(pfn, 3)
        guest.settle(guest.balloon.wanted_pages + 8)
    assert guest.balloon.held_pages == NR_PAGES
    assert guest.balloon.deflate_on_oom(0) == 256
    assert guest.zone.allocate(8) is not None


def test_a_block_comes_from_where_there_is_one(guest: Ballooned) -> None:
    """Pages come out such that a large block is left, wherever single pages in use lie."""
    held = [guest.zone.allocate(3) for _ in range(NR_PAGES // 8)]
    for pfn in held:
        assert pfn is not None
        if pfn % 512 or 1024 <= pfn < 1536:  # one small block stays in each frame but the third
            guest.zone.free(pfn, 3)
    guest.settle(NR_PAGES)
    assert guest.zone.words[FREE_PAGES] == 0
    assert guest.balloon.deflate_on_oom(9) == 512
    assert guest.zone.allocate(9) == 1024
    assert guest.balloon.deflate_on_oom(9) == 512, "there is no other; as many pages come back all the same"
    assert guest.zone.allocate(9) is None
    guest.zone.check()


def test_a_search_may_take_many_holds_of_the_lock() -> None:
    """Pages of the balloon are found, to deflate and for a block, beyond more used ones than one hold passes over."""
    guest = Ballooned(nr_pages=5 * STEPS_A_HOLD)
    used = [guest.zone.allocate(10) for _ in range(4 * STEPS_A_HOLD // 1024)]
    for pfn in used:
        assert pfn is not None
        guest.zone.free(pfn, 10)
        assert all(guest.zone.allocate(0) is not None for _ in range(1024))
    guest.settle(300)
    assert min(guest.told) >= 4 * STEPS_A_HOLD
    guest.settle(200)
    assert guest.batches[-1] == (Queue.DEFLATE, 100)
    free_pages = guest.zone.words[FREE_PAGES]
    assert guest.balloon.deflate_on_oom(1) == 200
    assert guest.zone.words[FREE_PAGES] == free_pages + 200
    guest.zone.check()


def test_large_blocks_come_out_from_above_and_small_ones_from_below(guest: Ballooned) -> None:
    """So small allocations do not break up the place of the next large one; each relief gives something."""
    guest.settle(NR_PAGES)
    for above in range(4):
        assert guest.balloon.deflate_on_oom(9) == 512
        assert guest.zone.allocate(9) == NR_PAGES - 512 * (above + 1)
        assert guest.balloon.deflate_on_oom(0) == 256
        assert guest.zone.allocate(8) == 256 * above
    assert guest.balloon.deflate_on_oom(9) == 512
    assert guest.balloon.deflate_on_oom(9) == 512, "a block that is free already is not what was missing"
    assert guest.balloon.deflate_on_oom(9) == 0
    guest.zone.check()


def test_pages_go_in_in_runs(guest: Ballooned) -> None:
    """They leave free memory in large blocks, and the small ones to who allocates those."""
    small = [guest.zone.allocate(1) for _ in range(64)]
    for pfn in small[::2]:
        assert pfn is not None
        guest.zone.free(pfn, 1)
    guest.settle(1024)
    assert {pfn for pfn in guest.in_balloon if pfn < 128} == set()
    guest.settle(NR_PAGES)
    assert guest.zone.words[FREE_PAGES] == 0


def test_an_empty_balloon_gives_nothing(guest: Ballooned) -> None:
    """Then memory is really out."""
    assert guest.balloon.deflate_on_oom(0) == 0
    assert guest.balloon.reliefs == 0


@pytest.mark.parametrize(("inflates", "held"), [(True, 0), (False, 300)])
def test_a_batch_that_fails_changes_nothing(guest: Ballooned, inflates: bool, held: int) -> None:
    """What was to go in is free again, what was to come out is still in it, and it is tried again after the delay."""
    guest.settle(held)
    guest.balloon.wanted_pages = 300 - held
    guest.now_s += 1.0
    assert guest.step(works=False)
    assert (guest.balloon.queue is Queue.INFLATE) == inflates
    assert guest.balloon.held_pages == held
    assert not guest.step()
    guest.zone.check()
    guest.settle(300 - held)
    assert guest.balloon.held_pages == 300 - held
    assert guest.told == guest.in_balloon


def test_can_be_switched_off_and_on(guest: Ballooned) -> None:
    """Off, all pages are the guest's again; back on, the host hears of that before anything goes in."""
    guest.settle(600)
    guest.balloon.stop()
    assert guest.zone.words[BALLOON_PAGES] == 0
    assert guest.zone.words[FREE_PAGES] == NR_PAGES
    assert guest.balloon.due_s is None
    assert guest.balloon.next_batch(guest.now_s + 100) is None
    guest.balloon.start(guest.now_s)
    guest.settle(100)
    assert guest.told == guest.in_balloon
    assert len(guest.told) == 100
    guest.zone.check()


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_host_knows_what_is_in_it_whatever_happens(data: st.DataObject) -> None:
    """Targets, failures, allocations and OOMs in any order: at the end what the host was told is what is in it."""
    guest = Ballooned()
    held: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(1, 15))):
        match data.draw(st.sampled_from(["target", "step", "fail", "allocate", "free", "oom"])):
            case "target":
                guest.balloon.wanted_pages = data.draw(st.integers(0, NR_PAGES))
                guest.now_s += 1.0
            case "step":
                guest.step()
            case "fail":
                guest.step(works=False)
            case "allocate":
                order = data.draw(st.integers(1, 10))
                pfn = guest.zone.allocate(order)
                if pfn is not None:
                    held.append((pfn, order))
            case "free" if held:
                guest.zone.free(*held.pop())
            case "oom":
                guest.balloon.deflate_on_oom(data.draw(st.integers(0, 10)))
        guest.zone.check()
    for _ in range(3):
        guest.now_s += 1.0
        guest.settle(guest.balloon.wanted_pages)
    assert guest.told == guest.in_balloon
    free = int(guest.zone.words[FREE_PAGES])
    assert guest.balloon.held_pages == guest.balloon.wanted_pages or free == 0
