"""What Linux's reporting does with free memory: which blocks it may take, and how fast (mm/page_reporting.c, 6.1).

A pass is due 2 s after a block of the reporting order was freed. It leaves a zone alone that has no more free than its
low watermark and one full report, 32 blocks of the reporting order. Of each free list it reports up to a sixteenth, but
one full report at least.
"""

from collections import defaultdict
from typing import NamedTuple

from pagetide.operate.guest.facts import GuestFacts, GuestZone

DELAY_S = 2.0
"""From a free until the pass (PAGE_REPORTING_DELAY)."""

CAPACITY = 32
"""Blocks in a report (PAGE_REPORTING_CAPACITY)."""

_SHARE = 16


class FreeMemory(NamedTuple):
    """Free memory by what reporting at an order does with it. All in bytes.

    Attributes:
        below_order: in smaller blocks, by order.
        blocked: in blocks large enough, of zones that are below the watermark rule.
        by_order: in blocks large enough, by order.
    """

    below_order: dict[int, int]
    blocked: int
    by_order: dict[int, int]

    @property
    def reportable(self) -> int:
        """In blocks large enough."""
        return sum(self.by_order.values())


def reporting_order(guest: GuestFacts) -> int:
    """The order in force, or that which would be: the size of a page block."""
    return guest.pageblock_order if guest.reporting_order is None else guest.reporting_order


def watermark_bytes(zone: GuestZone, order: int, page_bytes: int) -> int:
    """A zone with less free than this reports nothing (page_reporting_process_zone)."""
    return zone.low_bytes + (CAPACITY << order) * page_bytes


def sort_free(guest: GuestFacts, order: int) -> FreeMemory:
    """The guest's free memory, as reporting at this order sees it."""
    below: dict[int, int] = defaultdict(int)
    by_order: dict[int, int] = defaultdict(int)
    blocked = 0
    for zone in guest.zones:
        sizes = [(count << each) * guest.page_bytes for each, count in enumerate(zone.blocks)]
        for each, size_bytes in enumerate(sizes[:order]):
            below[each] += size_bytes
        if zone.free_bytes <= watermark_bytes(zone, order, guest.page_bytes):
            blocked += sum(sizes[order:])
            continue
        for each, size_bytes in enumerate(sizes[order:], order):
            by_order[each] += size_bytes
    return FreeMemory(below, blocked, by_order)


def drain_s(guest: GuestFacts, order: int, held_share: float) -> float:
    """Seconds until that share of the reportable blocks is reported.

    Args:
        guest: the guest.
        order: the reporting order.
        held_share: how much of what is reportable has not been, from 0 to 1.
    """
    passes = 0
    for zone in guest.zones:
        if zone.free_bytes <= watermark_bytes(zone, order, guest.page_bytes):
            continue
        for count in zone.blocks[order:]:
            a_pass = -(-count // (CAPACITY * _SHARE)) * CAPACITY
            passes = max(passes, -(-int(count * held_share) // a_pass) if count else 0)
    return passes * DELAY_S
