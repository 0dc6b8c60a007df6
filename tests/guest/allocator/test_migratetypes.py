"""A zone that keeps to migratetypes: which block an allocation gets, and that no page is ever lost over it."""

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagetide.guest.allocator.by_position import record_all_free, sweep
from pagetide.guest.allocator.isolate import FILLED, following_list, put_back, walk_free_list
from pagetide.guest.allocator.lists.migratetypes import migratetype_of
from pagetide.guest.allocator.page_alloc import join_all
from pagetide.guest.allocator.pcp import LINUX_PCP_ORDERS
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    FREE_PAGES,
    KEEP_APART,
    KEEP_WHOLE_MARKS,
    LISTED_SHIFT,
    MOVABLE,
    NR_FREE,
    ORDER_MASK,
    RECLAIMABLE,
    RECORD_UNREPORTED,
    UNMOVABLE,
)
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.units import ORDERS
from tests.guest.allocator.pageblock_model import PAGES, TYPES, PageblockModel

NONE = Watermarks(0, 0, 0)
NR_PAGES = 3 * 1024 + 700
"""Six pageblocks in blocks of two, one of its own, and a part of one at the end."""

orders = st.one_of(st.just(0), st.integers(0, 4), st.sampled_from([6, 8, 9, 10]))
types = st.sampled_from(TYPES)


def typed_zone(nr_pages: int = NR_PAGES, pcp_orders: tuple[int, ...] = (), vcpus: int = 1) -> Zone:
    """A zone without watermarks whose per-CPU lists are short."""
    return Zone(
        nr_pages,
        vcpus=vcpus,
        watermarks=NONE,
        pcp_batch=3,
        pcp_high=(7, 25),
        pcp_orders=pcp_orders,
        migratetypes=True,
    )


class TypedZoneAgainstModel(RuleBasedStateMachine):
    """Allocate, free, isolate and put back: each allocation gets the very block that the model says."""

    @initialize(held=st.lists(st.tuples(orders, types), max_size=60))
    def begin(self, held: list[tuple[int, int]]) -> None:
        self.zone, self.model = typed_zone(), PageblockModel(NR_PAGES)
        for order in reversed(range(ORDERS)):
            for pfn in self.zone.free_list(order):
                self.model.add(pfn, order, tail=True)
        for order, migratetype in held:
            self.allocate(order, migratetype)
        self.batch, self.filled = np.zeros(4, np.int64), 0

    @rule(order=orders, migratetype=types)
    def allocate(self, order: int, migratetype: int) -> None:
        expected = self.model.take(order, migratetype)
        assert self.zone.allocate(order, 0, migratetype) == expected

    @rule(order=orders, migratetype=types, most=st.integers(1, 40))
    def allocate_many(self, order: int, migratetype: int, most: int) -> None:
        for _ in range(most):
            self.allocate(order, migratetype)

    @precondition(lambda self: self.model.allocated)
    @rule(choose=st.randoms(use_true_random=False), most=st.integers(1, 30))
    def free(self, choose: Callable[..., int], most: int) -> None:
        for _ in range(min(most, len(self.model.allocated))):
            pfn = choose.choice(sorted(self.model.allocated))  # type: ignore[attr-defined]
            order, _ = self.model.allocated.pop(pfn)
            self.zone.free(pfn, order)
            self.model.give(pfn, order, tail=False)

    @rule(order=orders, migratetype=types)
    def isolate(self, order: int, migratetype: int) -> None:
        steps = np.array([0, 1000, 0, 0])
        listed = order | migratetype << LISTED_SHIFT
        walk_free_list(self.zone.words, self.zone.pages, listed, self.batch, self.filled, True, False, steps)
        for packed in self.batch[self.filled : self.filled + int(steps[FILLED])]:
            assert self.model.type_of(int(packed) >> 4) == migratetype or order >= 8
            self.model.isolate(int(packed) >> 4)
        self.filled += int(steps[FILLED])

    @rule()
    def put_back(self) -> None:
        put_back(self.zone.words, self.zone.pages, self.batch, self.filled, False)
        for packed in self.batch[: self.filled]:
            self.model.give(int(packed) >> 4, self.model.isolated.pop(int(packed) >> 4), tail=True)
        self.filled = 0

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "batch"):
            return
        self.zone.check()
        for (migratetype, order), listed in self.model.lists.items():
            assert self.zone.free_list(order, migratetype) == listed
        for first, migratetype in self.model.types.items():
            assert migratetype_of(self.zone.words, first) == migratetype


TestTypedZoneAgainstModel = TypedZoneAgainstModel.TestCase
TestTypedZoneAgainstModel.settings = settings(deadline=None, max_examples=25, stateful_step_count=20)


@pytest.mark.parametrize("keep_marks", [KEEP_WHOLE_MARKS, KEEP_APART])
def test_no_page_is_lost_with_lists_and_marks(keep_marks: int) -> None:
    """With per-CPU lists, two vCPUs, marks and a map of candidates all pages are in one place after each step."""
    rng = np.random.default_rng(keep_marks)
    zone = typed_zone(pcp_orders=LINUX_PCP_ORDERS, vcpus=2)
    switch_on(zone, ReportingSettings(order=2), recording=RECORD_UNREPORTED, keep_marks=keep_marks)
    record_all_free(zone)
    held: list[tuple[int, int]] = []
    batch = np.zeros(8, np.int64)
    for step in range(400):
        order, migratetype, vcpu = int(rng.choice([0, 0, 1, 3, 5, 9])), int(rng.integers(3)), int(rng.integers(2))
        if held and rng.random() < 0.45 + 0.1 * (step % 100 > 50):
            zone.free(*held.pop(int(rng.integers(len(held)))), vcpu)
        elif (pfn := zone.allocate(order, vcpu, migratetype)) is not None:
            held.append((pfn, order))
        if step % 20 == 0:
            steps = np.array([0, 64, 0, 0])
            sweep(zone.words, zone.pages, int(rng.integers(NR_PAGES)) & ~3, batch, steps)
            put_back(zone.words, zone.pages, batch, int(steps[FILLED]), step % 40 == 0)
        if step % 4 == 0:
            zone.check()
    for pfn, order in held:
        zone.free(pfn, order)
    zone.drain_pcp(0)
    zone.drain_pcp(1)
    join_all(zone.words, zone.pages)
    zone.check()
    assert zone.words[FREE_PAGES] == NR_PAGES
    assert zone.words[NR_FREE + 10] == 3


def test_what_cannot_be_moved_lies_together() -> None:
    """Pages of two types that are allocated by turns share no pageblock, as they do in a zone of one list."""
    zone = typed_zone()
    found = {t: {zone.allocate(0, 0, t) // PAGES for _ in range(300)} for t in (MOVABLE, UNMOVABLE)}  # type: ignore[operator]
    assert not found[MOVABLE] & found[UNMOVABLE]
    mixed = Zone(NR_PAGES, watermarks=NONE, pcp_orders=())
    shared = [{mixed.allocate(0, 0, t) // PAGES for _ in range(150)} for t in (MOVABLE, UNMOVABLE)]  # type: ignore[operator]
    assert shared[0] & shared[1]


def test_a_freed_page_goes_to_its_pageblocks_per_cpu_list() -> None:
    """What was allocated in a pageblock that another type has claimed since is listed, and goes back, as that one's."""
    zone = typed_zone(PAGES, (0,), vcpus=2)
    unmovable = zone.allocate(0, 0, UNMOVABLE)
    assert unmovable is not None
    assert migratetype_of(zone.words, 0) == UNMOVABLE
    zone.allocate(0, 0, MOVABLE)
    assert migratetype_of(zone.words, 0) == MOVABLE
    listed = zone.pcp_list(0, 0, UNMOVABLE)
    assert len(listed) == 2
    zone.free(unmovable, 0, 1)
    assert (zone.pcp_list(1, 0, UNMOVABLE), zone.pcp_list(1, 0, MOVABLE)) == ([], [unmovable])
    zone.drain_pcp(0)
    zone.drain_pcp(1)
    assert not any(zone.free_list(order, UNMOVABLE) for order in range(ORDERS))
    zone.check()


def test_lists_are_walked_by_order_and_then_by_type() -> None:
    """Each list is met once; without types it is one an order."""
    for migratetypes, kinds in ((True, 3), (False, 1)):
        words = Zone(1024, migratetypes=migratetypes).words
        listed, met = 9, []
        while listed & ORDER_MASK < ORDERS:
            met.append((listed & ORDER_MASK, listed >> LISTED_SHIFT))
            listed = int(following_list(words, listed))
        assert met == [(order, kind) for order in (9, 10) for kind in (MOVABLE, UNMOVABLE, RECLAIMABLE)[:kinds]]
