"""The balance: each byte that the host holds for a VM in exactly one class.

What the guest has in use, it has touched, and the host holds it. What is left over of the guest's memory that is held
lies in memory that is free in the guest. Of that, what never comes back by reporting comes first: pages on per-CPU
lists, and blocks that are too small, which were split from memory in use; then what the watermark rule keeps; the rest
is in blocks that could be reported. Where the host has the guest's memory in huge pages, and reporting goes on, they
hold what was given back in smaller pieces than they are, and is held nevertheless. So a class is wrong by as much as
the guest has in use without ever having touched it, and the kernel's own, in which that mostly is (memory kept for a
crash kernel), gives way to the others.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.guest.linux_reporting import CAPACITY, reporting_order, sort_free
from pagetide.operate.host.vmm_facts import VmmFacts
from pagetide.units import MIB, ORDER_MAX

PROCESSES = "used by processes"
SHARED = "shared memory and tmpfs"
CACHE_CLEAN = "page cache, clean"
CACHE_DIRTY = "page cache, dirty"
CACHE_PINNED = "page cache, not to be dropped"
SLAB_RECLAIMABLE = "slab, reclaimable"
SLAB = "slab, not reclaimable"
HUGE_USED = "huge pages in use"
HUGE_PARTS = "unmapped parts of processes' huge pages"
KERNEL = "the guest's kernel"
PCP = "free, on per-CPU lists"
BELOW_ORDER = "free, in blocks too small to be reported"
BLOCKED = "free, in zones below the watermark rule"
OUT = "free, in a report that is not answered"
HUGE_FREE = "free huge pages in pools"
REPORTABLE = "free, could be reported"
BALLOON = "in the balloon, and held all the same"
HOST_HUGE = "held by the host's huge pages beyond what the guest has"
FILE = "the file behind a private mapping"
NOT_EXPLAINED = "not explained"
VMM = "the VMM's own"

IN_USE = (
    PROCESSES, SHARED, CACHE_CLEAN, CACHE_DIRTY, CACHE_PINNED, SLAB_RECLAIMABLE, SLAB, HUGE_USED, HUGE_PARTS, KERNEL
)  # fmt: skip
"""Classes of memory that the guest has in use, in the order in which they are believed to be held."""

_FREE = (PCP, BELOW_ORDER, BLOCKED, OUT)


_LISTED = (
    "Active(anon)", "Inactive(anon)", "Active(file)", "Inactive(file)", "Unevictable", "SReclaimable", "SUnreclaim"
)  # fmt: skip
_KERNELS = ("KernelStack", "PageTables", "SecPageTables", "Percpu", "VmallocUsed", "Zswap")


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What the host holds for a VM, in RAM and in swap.

    Attributes:
        held_bytes: all of it, as the kernel says.
        swapped_bytes: as much of it is in the host's swap.
        classes: that, by class; they add up to `held_bytes`.
        below_order_bytes: of those too small to be reported, by order.
        order: the order that they are too small for: the reporting order, or that of a page of the host's hugetlbfs,
            if this is larger; None without a guest's text.
    """

    held_bytes: int
    swapped_bytes: int
    classes: dict[str, int]
    below_order_bytes: dict[int, int]
    order: int | None

    def of(self, name: str) -> int:
        """How much there is of a class."""
        return self.classes.get(name, 0)


class _Guest(NamedTuple):
    """Sizes of classes in the guest, touched or not."""

    in_use: Mapping[str, int]
    free: Mapping[str, int]
    reportable: int
    huge_free: int
    below_order: Mapping[int, int]
    balloon: int
    small: int


def balance(evidence: Evidence) -> Balance:
    """The balance of what was gathered."""
    vm, guest = evidence.vm, evidence.guest
    classes: dict[str, int] = {}
    below_order: dict[int, int] = {}
    order = None
    if guest is not None:
        order = _returned_order(guest, vm)
        sizes = _sizes(guest, vm.ram_bytes - _without(evidence), order, out_bytes(evidence))
        classes = dict(_held(sizes, vm, guest))
        below_order = _shared_out(sizes.below_order, classes.get(BELOW_ORDER, 0))
    left = vm.ram_held_bytes - sum(classes.values())
    classes[NOT_EXPLAINED] = left
    classes[FILE] = vm.ram_file_bytes
    classes[VMM] = vm.own_bytes + vm.own_swapped_bytes
    assert sum(classes.values()) == vm.held_bytes
    assert min(classes.values()) >= 0
    return Balance(
        held_bytes=vm.held_bytes,
        swapped_bytes=vm.ram_swapped_bytes + vm.own_swapped_bytes,
        classes=classes,
        below_order_bytes=below_order,
        order=order,
    )


def is_reporting(guest: GuestFacts) -> bool:
    """Whether the guest's driver reports free pages."""
    return any(each.has_driver and each.features >> REPORTING_BIT & 1 for each in guest.balloons)


REPORTING_BIT = 5
"""VIRTIO_BALLOON_F_REPORTING (virtio 1.2, 5.5.3)."""

PAGE_POISON_BIT = 4
"""VIRTIO_BALLOON_F_PAGE_POISON: the driver tells what it fills free pages with."""

HOST_HUGE_BYTES = 2 * MIB
"""A transparent huge page of the host's: x86's, and that of other processors with pages of 4 KiB."""

DEFLATE_ON_OOM_BIT = 2
"""VIRTIO_BALLOON_F_DEFLATE_ON_OOM: with it, what is in the balloon stays in MemTotal (drivers/virtio)."""


def _returned_order(guest: GuestFacts, vm: VmmFacts) -> int:
    """The smallest block that comes back. Of hugetlbfs only whole pages do, if a block can be one at all."""
    order = reporting_order(guest)
    pages = max((part.page_bytes for part in vm.ram if part.kind == "hugetlbfs"), default=0) // guest.page_bytes
    return max(order, pages.bit_length() - 1) if pages <= 1 << ORDER_MAX else order


def _sizes(guest: GuestFacts, ram_bytes: int, order: int, out: int) -> _Guest:
    memory = guest.memory
    file_lru = memory("Active(file)", "Inactive(file)")
    dirty = min(memory("Dirty", "Writeback"), file_lru)
    huge = sum(pool.page_bytes * pool.pages for pool in guest.pools)
    huge_free = sum(pool.page_bytes * min(pool.free_pages, pool.pages) for pool in guest.pools)
    in_use = {
        PROCESSES: memory("AnonPages", "SwapCached"),
        SHARED: memory("Shmem"),
        CACHE_CLEAN: file_lru - dirty,
        CACHE_DIRTY: dirty,
        CACHE_PINNED: max(0, memory("Cached", "Buffers") - memory("Shmem") - file_lru),
        SLAB_RECLAIMABLE: memory("SReclaimable"),
        SLAB: memory("SUnreclaim"),
        HUGE_USED: huge - huge_free,
        HUGE_PARTS: _unmapped_bytes(guest),
    }
    free = sort_free(guest, order)
    kernel = ram_bytes - sum(in_use.values()) - memory("MemFree") - guest.pcp_bytes - huge_free - guest.balloon_bytes
    out = min(out, max(0, kernel))
    in_use[KERNEL] = max(0, kernel - out)
    below = sum(free.below_order.values())
    return _Guest(
        MappingProxyType(in_use),
        MappingProxyType({PCP: guest.pcp_bytes, BELOW_ORDER: below, BLOCKED: free.blocked, OUT: out}),
        free.reportable,
        huge_free,
        MappingProxyType(free.below_order),
        guest.balloon_bytes,
        sum(each for order, each in free.by_order.items() if guest.page_bytes << order < HOST_HUGE_BYTES),
    )


def out_bytes(evidence: Evidence) -> int:
    """The most that is out in a report that waits: of its pages a guest's meminfo says but that there are so many.

    So it does of others of the kernel's own, such as zram's.
    """
    guest = evidence.guest
    if guest is None or not evidence.answers_no_report or not is_reporting(guest):
        return 0
    known = guest.memory("MemFree", *_LISTED, *_KERNELS)
    if any(each.features >> DEFLATE_ON_OOM_BIT & 1 for each in guest.balloons):
        known += guest.balloon_bytes
    pools = sum(pool.page_bytes * pool.pages for pool in guest.pools)
    left = guest.memory("MemTotal") - known - pools - guest.pcp_bytes
    block_bytes = guest.page_bytes << reporting_order(guest)
    return min(max(0, left) // block_bytes * block_bytes, (CAPACITY << ORDER_MAX) * guest.page_bytes)


def _without(evidence: Evidence) -> int:
    """What is mapped for the guest and what it has not: not plugged in, or not online."""
    devices = () if evidence.monitor is None else evidence.monitor.virtio_mem
    not_plugged = sum(max(0, each.max_bytes - each.size_bytes) for each in devices)
    offline = 0 if evidence.guest is None else evidence.guest.offline_bytes or 0
    return min(evidence.vm.ram_bytes, not_plugged + offline)


def _unmapped_bytes(guest: GuestFacts) -> int:
    """What a part of a huge page holds that no process maps any more: whole pages are listed, parts are mapped."""
    memory = guest.memory
    listed = memory("Active(anon)", "Inactive(anon)") - memory("AnonPages", "Shmem", "SwapCached")
    return max(0, listed if guest.partial_bytes is None else min(listed, guest.partial_bytes))


def _held(sizes: _Guest, vm: VmmFacts, guest: GuestFacts) -> Iterator[tuple[str, int]]:
    """As much of each class as is held, in the order in which they are believed to be."""
    left = vm.ram_held_bytes
    for name, size_bytes in (*sizes.in_use.items(), *((name, sizes.free[name]) for name in _FREE)):
        yield name, (taken := min(size_bytes, left))
        left -= taken
    huge = vm.ram_huge_bytes if is_reporting(guest) and not vm.keeps_all else 0
    # khugepaged fills what was given back of a huge page, and never one that was given back whole
    in_small = min(sizes.small, huge, left)
    left -= in_small
    large = sizes.reportable - in_small
    # Reported blocks go, and pools stay. Where nothing is reported, nobody can tell the two apart.
    both = sizes.huge_free + large
    first = sizes.huge_free if is_reporting(guest) or not both else left * sizes.huge_free // both
    huge_free = min(first, sizes.huge_free, left)
    yield HUGE_FREE, huge_free
    left -= huge_free
    yield REPORTABLE, (reportable := min(large, left))
    left -= reportable
    in_balloon = min(sizes.balloon, left)
    of_host = min(in_balloon, huge - in_small)
    yield BALLOON, in_balloon - of_host
    yield HOST_HUGE, in_small + of_host


def _shared_out(sizes: Mapping[int, int], held_bytes: int) -> dict[int, int]:
    """So much of these sizes, each in proportion; the largest order takes what rounding leaves."""
    total = sum(sizes.values())
    if not total:
        return {}
    parts = {order: held_bytes * size_bytes // total for order, size_bytes in sizes.items()}
    last = max(parts)
    parts[last] += held_bytes - sum(parts.values())
    return parts
