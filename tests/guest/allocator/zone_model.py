"""A buddy allocator in plain Python, slow and obvious, that follows a Zone from the outside.

It knows which block was allocated only from the zone's answer, and says whether that answer was allowed.
"""

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import ALLOCATED, BUDDY, ISOLATED, KEEP_APART, PCP, REPORTING_ORDER
from pagetide.units import COSTLY_ORDER, ORDER_MAX


class Lists:
    """A vCPU's per-CPU lists: of each order its blocks, the oldest first, with their marks."""

    def __init__(self, orders: tuple[int, ...], batch: int, high: int, high_max: int) -> None:
        self.blocks: dict[int, list[tuple[int, bool]]] = {order: [] for order in orders}
        self.batch, self.high, self.high_max = batch, high, high_max
        self.limit, self.freed = high, 0

    @property
    def pages(self) -> int:
        return sum(len(listed) << order for order, listed in self.blocks.items())

    def refill_blocks(self, order: int) -> int:
        return max(self.batch >> order, 2) if self.batch > 1 else 1

    def too_many(self, order: int, *, is_scarce: bool) -> int:
        """How many pages go back after a block of this order was freed."""
        if 0 < order <= COSTLY_ORDER and self.freed > self.batch + self.high // 2:
            self.limit = max(self.limit - 32 * self.batch, self.high)
            return min(self.pages, 32 * self.batch)
        if is_scarce and self.pages >= self.high:
            self.limit = max(self.limit - max(self.freed, self.batch), self.high)
            return max(self.batch, min(self.freed, self.pages - self.batch))
        if self.pages >= self.limit:
            most = self.limit - self.batch
            self.limit = max(self.limit, min(self.freed + self.batch, self.high_max))
            return max(self.batch, min(self.freed, most))
        return 0

    def pop_oldest(self, pages: int, first_order: int) -> list[tuple[int, int, bool]]:
        """Take so many pages off, those of one order first, then list by list."""
        orders = list(self.blocks)
        begin, popped = orders.index(first_order), []
        for order in orders[begin:] + orders[:begin]:
            while self.blocks[order] and pages > 0:
                pfn, reported = self.blocks[order].pop(0)
                popped.append((pfn, order, reported))
                pages -= 1 << order
        return popped


class ZoneModel:
    """Sets of blocks: free (frame to order and Reported mark), allocated, isolated, and the per-CPU lists."""

    def __init__(self, zone: Zone, lists: list[Lists], low: int, *, keep_marks: int) -> None:
        self.zone, self.lists, self.low = zone, lists, low
        self.keep_marks, self.apart = bool(keep_marks), keep_marks == KEEP_APART
        self.apart_from = int(zone.words[REPORTING_ORDER])
        self.free = {b.pfn: (b.order, b.reported) for b in zone.blocks() if b.kind == BUDDY}
        self.allocated: dict[int, int] = {}
        self.isolated: dict[int, int] = {}

    @property
    def free_pages(self) -> int:
        return sum(1 << order for order, _ in self.free.values())

    def has(self, order: int) -> bool:
        """Whether the buddy allocator may give a block of this order now."""
        largest = max((free_order for free_order, _ in self.free.values()), default=-1)
        return largest >= order and self.free_pages - (1 << order) >= self.low

    def take(self, pfn: int, order: int) -> bool:
        """The buddy allocator gave this block: it must be the smallest that could serve it; whether it keeps a mark.

        Where marks keep blocks apart it must be the smallest unreported one, if there is any.
        """
        holder = next(p for p, (o, _) in self.free.items() if p <= pfn < p + (1 << o))
        fit = min((reported and self.apart, o) for o, reported in self.free.values() if o >= order)
        holder_order, reported = self.free.pop(holder)
        assert (reported and self.apart, holder_order) == fit
        assert pfn == holder, "a split gives the lower half"
        for half in range(order, holder_order):
            self.free[pfn + (1 << half)] = (half, reported and self.keep_marks)
        return reported and self.keep_marks

    def give(self, pfn: int, order: int, reported: bool = False) -> None:
        """The buddy allocator got this block back: it merges as far as it can.

        A merge drops the mark, unless marks are kept and both halves have it. Where they keep blocks apart, those that
        could be reported merge with their like alone.
        """
        self._merge(pfn, order, reported, self.apart_from if self.apart else ORDER_MAX)

    def join(self) -> None:
        """An allocation was about to fail: blocks are kept apart no longer."""
        for pfn in sorted(self.free) if self.apart else ():
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
            reported = reported and buddy_reported and self.keep_marks
        self.free[pfn] = (order, reported)

    def allocated_one(self, vcpu: int, pfn: int, order: int) -> None:
        """A block was allocated; if nothing else would have served, everybody's lists were drained for it."""
        listed = self.lists[vcpu].blocks.get(order)
        if not listed and not self.has(order):
            self.make_whole(order)
        self.allocated[pfn] = order
        if listed is None:
            assert self.has(order)
            self.take(pfn, order)
        elif listed:
            assert listed.pop()[0] == pfn, "a per-CPU list is a stack"
            self.lists[vcpu].freed >>= 1
        else:
            self.refilled(self.lists[vcpu], vcpu, pfn, order)

    def refilled(self, lists: Lists, vcpu: int, pfn: int, order: int) -> None:
        """A block came from the buddy allocator, and further ones for the list, as far as there were any."""
        lists.freed >>= 1
        assert self.has(order)
        if self.free_pages >= self.low:
            lists.limit = min(lists.limit + lists.batch, lists.high_max)
        self.take(pfn, order)
        further = list(reversed(self.zone.pcp_list(vcpu, order)))
        for other in further:
            assert self.has(order)
            lists.blocks[order].insert(0, (other, self.take(other, order)))
        assert len(further) == lists.refill_blocks(order) - 1 or not self.has(order)

    def freed_one(self, vcpu: int, pfn: int, order: int) -> None:
        """A block was freed: to its list, which may be too long then, or else to the buddy allocator."""
        lists = self.lists[vcpu]
        if order not in lists.blocks:
            self.give(pfn, order)
            return
        lists.blocks[order].append((pfn, False))
        if lists.freed < 32 * lists.batch:
            lists.freed += 1 << order
        left = lists.too_many(order, is_scarce=self.free_pages < self.low)
        for block in lists.pop_oldest(left, order):
            self.give(*block)

    def drain(self, vcpu: int) -> None:
        lists = self.lists[vcpu]
        for block in lists.pop_oldest(lists.pages, 0):
            self.give(*block)
        lists.limit, lists.freed = lists.high, 0

    def make_whole(self, order: int) -> None:
        """What is done before an allocation of this order fails."""
        for vcpu in range(len(self.lists)):
            self.drain(vcpu)
        if order > 0 and self.free_pages - (1 << order) >= self.low:
            self.join()

    def check(self) -> None:
        """The zone has the very same blocks, marks and lists, and its counters agree with a recount."""
        self.zone.check()
        blocks = list(self.zone.blocks())
        assert {b.pfn: (b.order, b.reported) for b in blocks if b.kind == BUDDY} == self.free
        assert {b.pfn: b.order for b in blocks if b.kind == ISOLATED} == self.isolated
        assert {b.pfn: b.order for b in blocks if b.kind == ALLOCATED} == self.allocated
        marks = {b.pfn: b.reported for b in blocks if b.kind == PCP}
        for vcpu, lists in enumerate(self.lists):
            for order, listed in lists.blocks.items():
                assert [(pfn, marks[pfn]) for pfn in self.zone.pcp_list(vcpu, order)] == listed
