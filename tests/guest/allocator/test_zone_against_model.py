"""The zone against the model in zone_model.py, under arbitrary sequences of everything that can happen to it."""

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagetide.guest.allocator.by_position import record_all_free, sweep
from pagetide.guest.allocator.isolate import FILLED, LIST_DONE, PASSED_OVER, WATERMARK, put_back, walk_free_list
from pagetide.guest.allocator.pcp import LINUX_PCP_ORDERS
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    DROP_MARKS,
    ISOLATED_BLOCKS_MAX,
    KEEP_APART,
    KEEP_WHOLE_MARKS,
    NR_FREE,
    RECORD_HINT_ARRAYS,
    RECORD_HINT_MAP,
    RECORD_NOTHING,
    RECORD_UNREPORTED,
    RECORDING,
    REPORTING_ORDER,
)
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.units import ORDER_MAX
from tests.guest.allocator.zone_model import Lists, ZoneModel

VCPUS, BATCH, HIGH, CAPACITY = 2, 3, 7, 4
vcpus = st.integers(0, VCPUS - 1)
orders = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, ORDER_MAX))


class ZoneAgainstModel(RuleBasedStateMachine):
    """Allocate, free, drain, isolate and put back, in any order; after each step everything agrees."""

    @initialize(
        nr_pages=st.sampled_from([64, 96, 333, 3 << 10]),
        listed=st.sampled_from([(0,), LINUX_PCP_ORDERS]),
        high_max=st.sampled_from([HIGH, 25]),
        low=st.integers(0, 20),
        keep_marks=st.sampled_from([DROP_MARKS, KEEP_WHOLE_MARKS, KEEP_APART]),
        recording=st.sampled_from([RECORD_NOTHING, RECORD_UNREPORTED, RECORD_HINT_MAP, RECORD_HINT_ARRAYS]),
        order=st.integers(0, 4),
    )
    def begin(
        self,
        nr_pages: int,
        listed: tuple[int, ...],
        high_max: int,
        low: int,
        recording: int,
        order: int,
        *,
        keep_marks: int,
    ) -> None:
        self.low = low
        marks = Watermarks(low, low, low)
        self.zone = Zone(
            nr_pages, vcpus=VCPUS, watermarks=marks, pcp_batch=BATCH, pcp_high=(HIGH, high_max), pcp_orders=listed
        )
        switch_on(self.zone, ReportingSettings(order=order), recording=recording, keep_marks=keep_marks)
        if recording in {RECORD_UNREPORTED, RECORD_HINT_MAP}:
            record_all_free(self.zone)
        lists = [Lists(listed, BATCH, HIGH, high_max) for _ in range(VCPUS)]
        self.model = ZoneModel(self.zone, lists, low, keep_marks=keep_marks)
        self.batch = np.zeros(CAPACITY, np.int64)
        self.filled = 0

    @rule(order=orders, vcpu=vcpus)
    def allocate(self, order: int, vcpu: int) -> None:
        pfn = self.zone.allocate(order, vcpu)
        if pfn is not None:
            self.model.allocated_one(vcpu, pfn, order)
            return
        # It drained all lists before it gave up; then there really was nothing that it might have taken.
        assert not self.model.lists[vcpu].blocks.get(order)
        self.model.make_whole(order)
        assert not self.model.has(order)

    @precondition(lambda self: self.model.allocated)
    @rule(choose=st.randoms(use_true_random=False), vcpu=vcpus)
    def free(self, choose: Callable[..., int], vcpu: int) -> None:
        pfn = choose.choice(sorted(self.model.allocated))  # type: ignore[attr-defined]
        order = self.model.allocated.pop(pfn)
        self.zone.free(pfn, order, vcpu)
        self.model.freed_one(vcpu, pfn, order)

    @rule(pfn=st.integers(-2, 400), order=orders)
    def wrong_free(self, pfn: int, order: int) -> None:
        if self.model.allocated.get(pfn) != order:
            try:
                self.zone.free(pfn, order)
            except ValueError:
                return
            raise AssertionError("a block that was not allocated was freed")

    @rule(vcpu=vcpus)
    def drain(self, vcpu: int) -> None:
        self.zone.drain_pcp(vcpu)
        self.model.drain(vcpu)

    @rule(order=orders, all_round=st.booleans())
    def isolate(self, order: int, all_round: bool) -> None:
        steps = np.array([0, int(self.zone.words[NR_FREE + order]) if all_round else 1, 0, 0])
        outcome = walk_free_list(self.zone.words, self.zone.pages, order, self.batch, self.filled, True, True, steps)
        assert outcome != PASSED_OVER, "these lists are short"
        for packed in self.batch[self.filled : self.filled + int(steps[0])]:
            pfn, got_order = int(packed) >> 4, int(packed) & 15
            assert self.model.free.pop(pfn) == (order, False), "only unreported blocks of this order are isolated"
            assert got_order == order
            self.model.isolated[pfn] = order
        self.filled += int(steps[0])
        left = [p for p, state in self.model.free.items() if state == (order, False)]
        if outcome == LIST_DONE and all_round:
            assert not left
        if outcome == WATERMARK:
            assert self.model.free_pages - (1 << order) < self.low

    @rule(reported=st.booleans())
    def put_back(self, reported: bool) -> None:
        put_back(self.zone.words, self.zone.pages, self.batch, self.filled, reported)
        for packed in self.batch[: self.filled]:
            pfn, order = int(packed) >> 4, int(packed) & 15
            del self.model.isolated[pfn]
            self.model.give(pfn, order, reported)
        self.filled = 0

    @rule(places=st.integers(1, 40))
    def isolate_by_position(self, places: int) -> None:
        steps = np.array([self.filled, places, 0, 0])
        sweep(self.zone.words, self.zone.pages, 0, self.batch, steps)
        for packed in self.batch[self.filled : int(steps[FILLED])]:
            pfn, order = int(packed) >> 4, int(packed) & 15
            assert order >= self.zone.words[REPORTING_ORDER]
            assert self.model.free.pop(pfn) == (order, False), "only unreported blocks are isolated"
            self.model.isolated[pfn] = order
        self.filled = int(steps[FILLED])

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "model"):
            self.model.check()
            if self.zone.words[RECORDING] == RECORD_HINT_MAP:
                self.every_unreported_block_has_a_hint()
            assert self.zone.words[ISOLATED_BLOCKS_MAX] <= CAPACITY

    def every_unreported_block_has_a_hint(self) -> None:
        smallest = int(self.zone.words[REPORTING_ORDER])
        hinted = self.zone.candidates()
        for pfn, (order, reported) in self.model.free.items():
            if order >= smallest and not reported:
                assert any(pfn <= position << smallest < pfn + (1 << order) for position in hinted)


TestZoneAgainstModel = ZoneAgainstModel.TestCase
TestZoneAgainstModel.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
