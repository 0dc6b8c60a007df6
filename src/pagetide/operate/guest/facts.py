"""What a guest tells of its memory. All sizes are bytes."""

from typing import Annotated

import msgspec

from pagetide.operate.sizes import Count, Size, Word
from pagetide.units import ORDER_MAX, PAGEBLOCK_ORDER

ORDERS_MAX = 20
"""More orders than any allocator has."""

Order = Annotated[int, msgspec.Meta(ge=0, le=ORDERS_MAX)]
"""A block is 2^order of the guest's pages."""


class GuestZone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A zone (/proc/zoneinfo and /proc/buddyinfo).

    Attributes:
        node: its NUMA node.
        name: such as DMA32.
        free_bytes: free in its buddy allocator.
        low_bytes: its low watermark.
        pcp_bytes: on per-CPU lists, which `free_bytes` does not count.
        pcp_high_bytes: what those lists may grow to, all processors together.
        blocks: how many free blocks there are of each order.
    """

    node: Count
    name: Word
    free_bytes: Size = 0
    low_bytes: Size = 0
    pcp_bytes: Size = 0
    pcp_high_bytes: Size = 0
    blocks: Annotated[tuple[Count, ...], msgspec.Meta(max_length=ORDERS_MAX + 1)] = ()


class HugePool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool of huge pages of one size."""

    page_bytes: Size
    pages: Count
    free_pages: Count


class GuestBalloon(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A balloon device that the guest has found.

    Attributes:
        has_driver: whether a driver has taken it.
        features: the bits that were negotiated, bit 0 the lowest; 0 before that.
    """

    has_driver: bool
    features: Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]


class Consumer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A control group of the guest's that has much memory.

    Attributes:
        name: one that every guest has, such as system.slice, or `other`.
        level: how far down it is; 1 is right below the root.
        charged_bytes: to it and to those below.
        process_bytes: of that, its processes'.
        shared_bytes: of that, shared memory and tmpfs.
    """

    name: Word
    level: Count
    charged_bytes: Size
    process_bytes: Size
    shared_bytes: Size


class GuestFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a guest's text says.

    Attributes:
        release: its kernel's.
        page_bytes: size of a page.
        parameters: words of its command line that have to do with memory.
        meminfo: /proc/meminfo, in bytes; HugePages_* as counts.
        vmstat: /proc/vmstat.
        zones: those that have memory.
        pools: of huge pages.
        reporting_order: the smallest block that is reported; None where nothing reports.
        pageblock_order: of its page blocks; what reports by default.
        balloons: balloon devices.
        percpu_pagelist_high_fraction: as set; 0 is the kernel's own rule, None not known.
        unread: which parts could not be read.
        partial_bytes: huge pages of processes of which a part was unmapped, and which wait to be split (Linux 6.12 and
            newer); None where the kernel does not count them.
        offline_bytes: memory that was plugged in and is not online; None for a kernel without hotplug.
        consumers: control groups that have much, the largest first.
        sampled_pages: of some pages, how many are of which kind (/proc/kpageflags); none where that cannot be read.
    """

    release: Word
    page_bytes: Size
    parameters: tuple[Word, ...]
    meminfo: dict[Word, Size]
    vmstat: dict[Word, Count]
    zones: tuple[GuestZone, ...]
    pools: tuple[HugePool, ...]
    reporting_order: Order | None
    pageblock_order: Order
    balloons: tuple[GuestBalloon, ...]
    percpu_pagelist_high_fraction: Count | None
    unread: tuple[Word, ...]
    partial_bytes: Size | None = None
    offline_bytes: Size | None = None
    consumers: tuple[Consumer, ...] = ()
    sampled_pages: dict[Word, Count] = {}

    def memory(self, *names: str) -> int:
        """The sum of these lines of /proc/meminfo; one that this kernel has not is 0."""
        return sum(self.meminfo.get(name, 0) for name in names)

    @property
    def balloon_bytes(self) -> int:
        """In the balloon: pages put in less pages taken out (mm/balloon_compaction.c)."""
        pages = self.vmstat.get("balloon_inflate", 0) - self.vmstat.get("balloon_deflate", 0)
        return max(0, pages) * self.page_bytes

    @property
    def pcp_bytes(self) -> int:
        """On all per-CPU lists."""
        return sum(zone.pcp_bytes for zone in self.zones)

    @property
    def release_number(self) -> tuple[int, int] | None:
        """Major and minor of the release; None if it does not begin with them."""
        parts = self.release.split(".")
        if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            return None
        return int(parts[0]), int(parts[1])


DEFAULT_ORDER = PAGEBLOCK_ORDER
"""Where a guest does not tell its pageblock order."""

assert ORDER_MAX <= ORDERS_MAX
