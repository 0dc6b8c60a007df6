"""A buddy allocator in plain Python, slow and obvious, that follows a Zone from the outside.

It knows which block was allocated only from the zone's answer, and says whether that answer was allowed.
"""

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import BUDDY, ISOLATED, KEEP_APART, REPORTING_ORDER
from pagetide.units import ORDER_MAX


class ZoneModel:
    """Sets of blocks: free (frame to order and Reported mark), allocated, isolated, and the per-CPU lists."""

    def __init__(self, zone: Zone, vcpus: int, batch: int, high: int, *, keep_marks: int) -> None:
        self.zone = zone
        self.apart_from = int(zone.words[REPORTING_ORDER])
        self.keep_marks = keep_marks
        self.batch, self.high = batch, high
        self.free = {b.pfn: (b.order, b.reported) for b in zone.blocks() if b.kind == BUDDY}
        self.allocated: dict[int, int] = {}
        self.isolated: dict[int, int] = {}
        self.pcp: list[list[int]] = [[] for _ in range(vcpus)]

    @property
    def free_pages(self) -> int:
        return sum(1 << order for order, _ in self.free.values())

    def take(self, pfn: int, order: int) -> None:
        """The buddy allocator gave this block: it must come from the smallest free block that could serve it.

        Where marks keep blocks apart it must come from the smallest unreported one, if there is any.
        """
        holder = next(p for p, (o, _) in self.free.items() if p <= pfn < p + (1 << o))
        fit = [(mark and self.keep_marks == KEEP_APART, o) for o, mark in self.free.values() if o >= order]
        holder_order, reported = self.free.pop(holder)
        assert (reported and self.keep_marks == KEEP_APART, holder_order) == min(fit)
        assert pfn == holder, "a split gives the lower half"
        for half in range(order, holder_order):
            self.free[pfn + (1 << half)] = (half, reported and bool(self.keep_marks))

    def give(self, pfn: int, order: int, reported: bool = False) -> None:
        """The buddy allocator got this block back: it merges as far as it can.

        A merge drops the mark, unless marks are kept and both halves have it. Where they keep blocks apart, those that
        could be reported merge with their like alone.
        """
        self._merge(pfn, order, reported, self.apart_from if self.keep_marks == KEEP_APART else ORDER_MAX)

    def join(self) -> None:
        """An allocation was about to fail: blocks are kept apart no longer."""
        if self.keep_marks == KEEP_APART:
            for pfn in sorted(self.free):
                if pfn in self.free:
                    self._merge(pfn, *self.free.pop(pfn), ORDER_MAX)

    def _merge(self, pfn: int, order: int, reported: bool, apart_from: int) -> None:
        while order < ORDER_MAX and self.free.get(pfn ^ (1 << order), (None, False))[0] == order:
            _, buddy_reported = self.free[pfn ^ (1 << order)]
            if buddy_reported != reported and order >= apart_from:
                break
            del self.free[pfn ^ (1 << order)]
            pfn &= ~(1 << order)
            order += 1
            reported = reported and buddy_reported and bool(self.keep_marks)
        self.free[pfn] = (order, reported)

    def allocated_order_0(self, vcpu: int, pfn: int) -> None:
        """A page came from a per-CPU list, which may have been refilled for it."""
        if not self.pcp[vcpu]:
            taken = [pfn, *reversed(self.zone.pcp_list(vcpu))]
            assert len(taken) <= self.batch
            for page in taken:
                self.take(page, 0)
            self.pcp[vcpu] = list(reversed(taken))
        assert self.pcp[vcpu].pop() == pfn, "a per-CPU list is a stack"
        self.allocated[pfn] = 0

    def freed_order_0(self, vcpu: int, pfn: int) -> None:
        """A page went to a per-CPU list; a long one gives back the pages freed longest ago."""
        self.pcp[vcpu].append(pfn)
        if len(self.pcp[vcpu]) > self.high:
            self.drain(vcpu, self.batch)

    def drain(self, vcpu: int, count: int) -> None:
        drained, self.pcp[vcpu] = self.pcp[vcpu][:count], self.pcp[vcpu][count:]
        for page in drained:
            self.give(page, 0)

    def check(self) -> None:
        """The zone has the very same blocks, marks and lists, and its counters agree with a recount."""
        self.zone.check()
        blocks = list(self.zone.blocks())
        assert {b.pfn: (b.order, b.reported) for b in blocks if b.kind == BUDDY} == self.free
        assert {b.pfn: b.order for b in blocks if b.kind == ISOLATED} == self.isolated
        assert [self.zone.pcp_list(vcpu) for vcpu in range(len(self.pcp))] == self.pcp
