"""Linux's choice of a block by migratetype (mm/page_alloc.c, 6.12) in plain Python: lists as lists, head first.

It has no per-CPU lists and no marks but those that put blocks to the tail, and says which block an allocation gets.
"""

from pagetide.guest.allocator.zone_layout import MOVABLE, RECLAIMABLE, UNMOVABLE
from pagetide.units import ORDER_MAX, ORDERS, PAGEBLOCK_ORDER

TYPES = (MOVABLE, UNMOVABLE, RECLAIMABLE)
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}
PAGES = 1 << PAGEBLOCK_ORDER


class PageblockModel:
    """Free lists by type and order, the pageblocks' types, what is allocated with its type, and what is isolated."""

    def __init__(self, nr_pages: int) -> None:
        self.nr_pages = nr_pages
        self.lists: dict[tuple[int, int], list[int]] = {(t, order): [] for t in TYPES for order in range(ORDERS)}
        self.types = dict.fromkeys(range(0, nr_pages, PAGES), MOVABLE)
        self.free: dict[int, int] = {}
        self.allocated: dict[int, tuple[int, int]] = {}
        self.isolated: dict[int, int] = {}

    def type_of(self, pfn: int) -> int:
        return self.types[pfn // PAGES * PAGES]

    def add(self, pfn: int, order: int, *, tail: bool) -> None:
        listed = self.lists[self.type_of(pfn), order]
        listed.insert(len(listed) if tail else 0, pfn)
        self.free[pfn] = order

    def remove(self, pfn: int) -> int:
        order = self.free.pop(pfn)
        self.lists[self.type_of(pfn), order].remove(pfn)
        return order

    def retype(self, pfn: int, order: int, migratetype: int) -> None:
        for first in range(pfn, pfn + (1 << order), PAGES):
            self.types[first] = migratetype

    def take(self, order: int, migratetype: int) -> int | None:
        """Allocate; the first frame that the zone must give."""
        found = self.smallest(order, migratetype) or self.fall_back(order, migratetype)
        if found is None:
            return None
        pfn, current = found
        assert self.remove(pfn) == current
        while current > order:
            current -= 1
            self.add(pfn + (1 << current), current, tail=False)
        self.allocated[pfn] = (order, migratetype)
        return pfn

    def smallest(self, order: int, migratetype: int) -> tuple[int, int] | None:
        for current in range(order, ORDERS):
            if self.lists[migratetype, current]:
                return self.lists[migratetype, current][0], current
        return None

    def fall_back(self, order: int, migratetype: int) -> tuple[int, int] | None:
        """The largest block of another type that there is, or for what is movable the smallest of the small ones."""
        orders = [o for o in range(order, ORDERS) if any(self.lists[t, o] for t in FALLBACKS[migratetype])]
        if not orders:
            return None
        current = orders[-1]
        may_claim = current >= PAGEBLOCK_ORDER // 2 or migratetype != MOVABLE
        if not may_claim:
            current = orders[0]
        other = next(t for t in FALLBACKS[migratetype] if self.lists[t, current])
        pfn = self.lists[other, current][0]
        if current >= PAGEBLOCK_ORDER:
            self.remove(pfn)
            self.retype(pfn, current, migratetype)
            self.add(pfn, current, tail=False)
        elif may_claim and self.is_worth_claiming(pfn // PAGES * PAGES, other, migratetype):
            self.move(pfn // PAGES * PAGES, migratetype)
            return self.smallest(order, migratetype)
        return pfn, current

    def is_worth_claiming(self, first: int, other: int, migratetype: int) -> bool:
        """Whether half of the pageblock is free or, as far as can be told, of the type that wants it."""
        end = first + PAGES
        if end > self.nr_pages:
            return False
        free = sum(1 << order for pfn, order in self.free.items() if first <= pfn < end)
        blocks = [block for pfn, block in self.allocated.items() if first <= pfn < end]
        movable = sum(1 << order for order, its in blocks if its == MOVABLE)
        alike = movable if migratetype == MOVABLE else PAGES - free - movable if other == MOVABLE else 0
        return free + alike >= PAGES // 2

    def move(self, first: int, migratetype: int) -> None:
        """The pageblock becomes the type's, and what is free in it goes to its lists' tails, by position."""
        pfns = sorted(pfn for pfn in self.free if first <= pfn < first + PAGES)
        orders = [self.remove(pfn) for pfn in pfns]
        self.types[first] = migratetype
        for pfn, order in zip(pfns, orders, strict=True):
            self.add(pfn, order, tail=True)

    def give(self, pfn: int, order: int, *, tail: bool) -> None:
        """A block comes back and merges; what it merges into is all of its own pageblock's type."""
        own = self.type_of(pfn)
        while order < ORDER_MAX and self.free.get(pfn ^ (1 << order)) == order:
            self.remove(pfn ^ (1 << order))
            pfn &= ~(1 << order)
            order += 1
        if order > PAGEBLOCK_ORDER:
            self.retype(pfn, order, own)
        likely = order < ORDER_MAX - 1 and self.free.get((pfn & ~(1 << order)) ^ (2 << order)) == order + 1
        self.add(pfn, order, tail=tail or likely)

    def isolate(self, pfn: int) -> None:
        """A block leaves the allocator to be reported; at half a pageblock or more, that becomes movable."""
        order = self.isolated[pfn] = self.remove(pfn)
        if order >= PAGEBLOCK_ORDER - 1:
            for first in range(pfn // PAGES * PAGES, pfn + (1 << order), PAGES):
                if self.types[first] != MOVABLE:
                    self.move(first, MOVABLE)
