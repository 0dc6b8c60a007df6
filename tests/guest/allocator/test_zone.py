"""A zone, step by step: what Linux's allocator does with blocks, marks, lists and watermarks."""

import mmap
from typing import Any

import pytest

from pagetide.guest.allocator.isolate import TAKEN, WATERMARK, isolate_block, put_back
from pagetide.guest.allocator.pcp import PCP_BATCH_PAGES, PCP_MAX_PAGES
from pagetide.guest.allocator.zone import Watermarks, Zone, linux_watermarks
from pagetide.guest.allocator.zone_layout import (
    FREE_PAGES,
    MIGRATETYPES,
    NR_FREE,
    NR_REPORTED,
    PCP_FRACTION,
    REPORTED_PAGES,
    arena_bytes,
    pcp_room,
    words_count,
)
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES
from tests.guest.reporting.batches import batch_of

NONE = Watermarks(0, 0, 0)


def small_zone(nr_pages: int = 1024, **options: Any) -> Zone:
    """A zone without watermarks whose per-CPU lists are short, and of single pages."""
    lists: dict[str, Any] = {"pcp_batch": 2, "pcp_high": (4, 4), "pcp_orders": (0,)}
    return Zone(nr_pages, watermarks=NONE, **(lists | options))


def report(zone: Zone, pfn: int, order: int) -> None:
    """Isolate this free block and put it back, reported."""
    assert isolate_block(zone.words, zone.pages, pfn, order) == TAKEN
    put_back(zone.words, zone.pages, batch_of((pfn, order)), 1, True)


@pytest.mark.parametrize("nr_pages", [1, 63, 1024, 1025, 4096 + 512 + 3])
def test_a_new_zone_is_all_free_in_the_largest_blocks(nr_pages: int) -> None:
    """Every frame is free, whatever the size, and no two blocks could still merge."""
    zone = Zone(nr_pages, watermarks=NONE)
    zone.check()
    assert zone.words[FREE_PAGES] == nr_pages
    assert zone.words[NR_FREE + ORDER_MAX] == nr_pages // 1024


def test_an_allocation_splits_the_smallest_block_that_serves() -> None:
    """A 4 MiB block split for order 3 leaves one free block of each order between, and gives the lowest frames."""
    zone = small_zone()
    assert zone.allocate(3) == 0
    assert [zone.free_list(order) for order in range(3, ORDER_MAX)] == [[1 << order] for order in range(3, ORDER_MAX)]


def test_freeing_merges_all_the_way_up() -> None:
    """What an allocation split is one block again once it is freed."""
    zone = small_zone()
    pfn = zone.allocate(3)
    assert pfn is not None
    zone.free(pfn, 3)
    assert zone.free_list(ORDER_MAX) == [0]


def test_pages_come_in_batches_to_the_vcpus_list() -> None:
    """An order-0 allocation takes a batch from the buddy allocator, and the next one takes nothing from it."""
    zone = small_zone(pcp_batch=3, pcp_high=(6, 6))
    assert zone.allocate(0) == 0
    free_pages = zone.words[FREE_PAGES]
    assert zone.pcp_list(0) == [2, 1]
    assert zone.allocate(0) == 1
    assert zone.words[FREE_PAGES] == free_pages == 1024 - 3


def test_a_long_pcp_list_gives_back_what_was_freed_first() -> None:
    """At its high mark a list drains a batch, oldest first."""
    zone = small_zone(pcp_batch=2, pcp_high=(4, 4))
    held = [zone.allocate(0) for _ in range(6)]
    for pfn in held[:4]:
        assert pfn is not None
        zone.free(pfn, 0)
    assert zone.pcp_list(0) == held[2:4]


@pytest.mark.parametrize(("most", "limit"), [(256, 256), (512, 512), (1 << 14, 1024)])
def test_lists_grow_to_a_vcpus_share_of_an_eighth(most: int, limit: int) -> None:
    """What is freed one after the other stays on the list up to Linux's limit since 6.7, or the zone's own."""
    zone = Zone(1 << 14, vcpus=2, watermarks=NONE, pcp_max=most)
    held = [zone.allocate(0, 1) for _ in range(4096)]
    longest = 0
    for pfn in held:
        assert pfn is not None
        zone.free(pfn, 0, 1)
        longest = max(longest, len(zone.pcp_list(1)))
    assert limit - PCP_BATCH_PAGES < longest <= limit
    assert zone.pcp_list(1)[-1] == held[-1]
    zone.check()
    zone.drain_pcp(1)
    assert zone.words[FREE_PAGES] == 1 << 14


def test_an_allocation_drains_every_list_before_it_fails() -> None:
    """Pages that sit on another vCPU's list are found when nothing else is left."""
    zone = Zone(8, vcpus=2, watermarks=NONE, pcp_batch=2, pcp_high=(9, 9))
    for pfn in [zone.allocate(0, 1) for _ in range(8)]:
        assert pfn is not None
        zone.free(pfn, 0, 1)
    assert zone.words[FREE_PAGES] == 0
    assert zone.allocate(3, 0) == 0


def test_allocations_stop_at_the_min_watermark() -> None:
    """Free memory never falls below min, neither by allocating nor by isolating."""
    zone = Zone(64, watermarks=Watermarks(32, 40, 48))
    assert zone.allocate(6) is None
    assert zone.allocate(5) == 0
    assert zone.allocate(0) is None
    assert isolate_block(zone.words, zone.pages, 32, 5) == WATERMARK
    zone.check()


def test_watermarks_are_linuxs() -> None:
    """A 2 GiB guest has min_free_kbytes 5792, and the other marks a quarter and a half above that."""
    assert linux_watermarks(2 << 18) == (1448, 1810, 2172)


@pytest.mark.parametrize(("pfn", "order"), [(0, 2), (0, 4), (1, 3), (512, 3), (-1, 0), (1 << 40, 0)])
def test_a_wrong_free_is_refused_and_changes_nothing(pfn: int, order: int) -> None:
    """Wrong order, a frame within a block, a free block, a frame outside: an error, and the zone is as before."""
    zone = small_zone()
    assert zone.allocate(3) == 0
    before = zone.pages.copy()
    with pytest.raises(ValueError, match="no block of order"):
        zone.free(pfn, order)
    assert (before == zone.pages).all()


def test_a_double_free_is_refused() -> None:
    """The second free of a page finds it on a per-CPU list and is refused."""
    zone = small_zone()
    assert zone.allocate(0) == 0
    zone.free(0, 0)
    with pytest.raises(ValueError, match="no block of order 0"):
        zone.free(0, 0)


def test_a_reported_block_is_marked() -> None:
    """A block put back as it was is marked, and counted."""
    zone = small_zone()
    report(zone, 0, ORDER_MAX)
    assert [block.reported for block in zone.blocks()] == [True]
    assert zone.words[REPORTED_PAGES] == 1024
    zone.check()


def test_allocating_drops_the_mark_and_so_does_splitting() -> None:
    """After an allocation out of a reported block neither it nor any half left over is marked."""
    zone = small_zone()
    report(zone, 0, ORDER_MAX)
    assert zone.allocate(4) == 0
    assert not any(block.reported for block in zone.blocks())
    assert zone.words[REPORTED_PAGES] == 0
    assert not zone.words[NR_REPORTED : NR_REPORTED + ORDER_MAX + 1].any()


def test_merging_drops_the_mark() -> None:
    """A reported block that merges with a freed one is unmarked: not all of it was reported."""
    zone = small_zone()
    assert zone.allocate(9) == 0
    report(zone, 512, 9)
    assert zone.words[REPORTED_PAGES] == 512
    zone.free(0, 9)
    assert [(block.order, block.reported) for block in zone.blocks()] == [(ORDER_MAX, False)]
    zone.check()


def test_a_block_that_merges_on_its_way_back_is_not_marked() -> None:
    """A block whose buddy was freed while it was out comes back as a larger, unmarked one."""
    zone = small_zone()
    assert zone.allocate(9) == 0
    assert isolate_block(zone.words, zone.pages, 512, 9) == TAKEN
    zone.free(0, 9)
    assert zone.free_list(9) == [0], "an isolated block is nobody's buddy"
    put_back(zone.words, zone.pages, batch_of((512, 9)), 1, True)
    assert [(block.order, block.reported) for block in zone.blocks()] == [(ORDER_MAX, False)]


def test_a_second_look_at_the_arena_sees_the_same_zone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Another mapping of the arena's file shows the counters and records that the zone works on."""
    path = tmp_path_factory.mktemp("arena") / "arena"
    path.write_bytes(bytes(arena_bytes(64, 1, PCP_MAX_PAGES)))
    with path.open("r+b") as file:
        zone = Zone(64, watermarks=NONE, arena_fd=file.fileno())
        with mmap.mmap(file.fileno(), 0) as other:
            zone.allocate(4)
            assert other[: zone.words.nbytes] == zone.words.tobytes()
            assert other[zone.words.nbytes : zone.words.nbytes + zone.pages.nbytes] == zone.pages.tobytes()


def test_rings_are_as_long_as_lists_can_grow() -> None:
    """A terabyte's rings are small where lists are; where they may have a share of RAM, they have the room."""
    nr_pages = (1 << 40) // PAGE_SIZE_BYTES
    short, long = (words_count(nr_pages, 2, pcp_max) for pcp_max in (PCP_MAX_PAGES, nr_pages))
    rings = 2 * MIGRATETYPES * 2
    assert long - short == rings * (pcp_room(nr_pages, 2, nr_pages) - pcp_room(nr_pages, 2, PCP_MAX_PAGES))
    assert pcp_room(nr_pages, 2, PCP_MAX_PAGES) == 2 * PCP_MAX_PAGES
    assert pcp_room(nr_pages, 2, nr_pages) > nr_pages // PCP_FRACTION // 2
    assert 8 * short < 1 << 30


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nr_pages": 0}, "cannot have 0 pages"),
        ({"vcpus": 0}, "at least one vCPU"),
        ({"pcp_batch": 5, "pcp_high": (4, 4)}, "per-CPU list"),
        ({"pcp_high": (512, 512)}, "per-CPU list"),
    ],
)
def test_a_zone_that_cannot_be_is_refused(options: dict[str, int], sentence: str) -> None:
    """A size or a list length out of range is an error that says which."""
    with pytest.raises(ValueError, match=sentence):
        Zone(**({"nr_pages": 64, "watermarks": NONE} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("order", "vcpu"), [(-1, 0), (11, 0), (0, 1), (0, -1)])
def test_an_order_or_vcpu_that_is_not_there_is_refused(order: int, vcpu: int) -> None:
    """A number out of range never reaches the arrays."""
    with pytest.raises(ValueError, match="there is no"):
        small_zone().allocate(order, vcpu)


def test_the_check_can_fail() -> None:
    """A counter that is off by one, or a mark that nobody counted, is noticed."""
    for word in (FREE_PAGES, REPORTED_PAGES, NR_FREE):
        zone = small_zone()
        zone.words[word] += 1
        with pytest.raises(AssertionError):
            zone.check()
