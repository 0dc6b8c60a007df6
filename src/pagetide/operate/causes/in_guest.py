"""Why memory is held that reporting cannot return: small blocks, per-CPU lists, caches, pools, and the balloon."""

from collections.abc import Iterator
from functools import partial

from pagetide.operate import balance as classes
from pagetide.operate.balance import Balance
from pagetide.operate.causes.finding import Finding, Remedy
from pagetide.operate.evidence import Evidence
from pagetide.operate.guest.facts import GuestFacts
from pagetide.operate.guest.linux_reporting import CAPACITY, reporting_order, watermark_bytes
from pagetide.units import format_size

_ENOUGH = 0.8
"""A lower order that returns this share of what lies in small blocks is recommended, if none smaller does."""

_MOSTLY, _MUCH = 0.75, 0.5
"""Processes that have these shares of what is held, and of the guest's memory, are the answer."""

_PARTS_ORDER = 5
"""What processes give back of a huge page is seldom smaller."""

_PCP_FILE = "/proc/sys/vm/percpu_pagelist_high_fraction"
_ORDER_FILE = "/sys/module/page_reporting/parameters/page_reporting_order"


def guest_causes(evidence: Evidence, balance: Balance, least_bytes: int) -> Iterator[Finding]:
    """What is found of all that, where it is so much."""
    guest = evidence.guest
    if guest is None:
        return
    is_order_the_guests = balance.order == reporting_order(guest)
    found = (
        (balance.of(classes.BELOW_ORDER) if is_order_the_guests else 0, partial(_too_small, balance)),
        (balance.of(classes.BLOCKED), partial(_blocked, balance)),
        (balance.of(classes.PCP), _per_cpu),
        (balance.of(classes.CACHE_CLEAN), _cache),
        (balance.of(classes.CACHE_DIRTY), _dirty),
        (balance.of(classes.CACHE_PINNED), _pinned),
        (balance.of(classes.SLAB_RECLAIMABLE), _slab),
        (balance.of(classes.SHARED) - guest.memory("Mapped"), _tmpfs),
        (balance.of(classes.HUGE_FREE), _pool),
        (guest.balloon_bytes - balance.of(classes.BALLOON), _balloon),
        (balance.of(classes.HUGE_PARTS), _deferred_split),
    )
    for size_bytes, make in found:
        if size_bytes >= least_bytes:
            yield make(guest, size_bytes)
    in_use = balance.of(classes.PROCESSES)
    if in_use >= max(least_bytes, _MOSTLY * evidence.vm.ram_held_bytes, _MUCH * evidence.vm.ram_bytes):
        yield _in_use(guest, in_use)


def _reports(guest: GuestFacts, size_bytes: int) -> int | None:
    """What comes back of memory that becomes free: nothing where nobody reports it."""
    return size_bytes if classes.is_reporting(guest) else None


def _too_small(balance: Balance, guest: GuestFacts, size_bytes: int) -> Finding:
    order = balance.order
    assert order is not None
    returns = {low: sum(each for at, each in balance.below_order_bytes.items() if at >= low) for low in range(order)}
    best = max((low for low, total in returns.items() if total >= _ENOUGH * size_bytes), default=0)
    table = ", ".join(f"{low}: {format_size(total)}" for low, total in sorted(returns.items(), reverse=True))
    return Finding(
        cause="order-too-high",
        size_bytes=size_bytes,
        sentence=f"{format_size(size_bytes)} are free in blocks that are too small: reporting begins at order {order}.",
        evidence=(f"free blocks by order (buddyinfo); what each lower order would return: {table}",),
        remedies=(
            Remedy(
                where="guest",
                command=f"echo {best} >{_ORDER_FILE}",
                note="until the guest reboots; it takes effect when the next such block is freed",
            ),
            Remedy(
                where="guest",
                command="echo 1 >/proc/sys/vm/compact_memory",
                note="once: it makes large blocks of small ones",
            ),
        ),
        returns_bytes=_reports(guest, returns[best]),
        cost=f"up to {1 << (order - best)} times as many reports and discards for the same memory",
    )


def _blocked(balance: Balance, guest: GuestFacts, size_bytes: int) -> Finding:
    order = balance.order
    assert order is not None
    low = max(0, order - 4)
    with_it = sum(each for at, each in balance.below_order_bytes.items() if at >= low)
    zones = [
        f"{zone.name} has {format_size(zone.free_bytes)} free, and needs "
        f"{format_size(watermark_bytes(zone, order, guest.page_bytes))}"
        for zone in guest.zones
        if zone.free_bytes <= watermark_bytes(zone, order, guest.page_bytes)
    ]
    return Finding(
        cause="below-watermark",
        size_bytes=size_bytes,
        sentence=f"Linux reports nothing of a zone that has no more free than its low watermark and {CAPACITY} "
        f"blocks of order {order}.",
        evidence=tuple(zones[:8]),
        remedies=(Remedy(where="guest", command=f"echo {low} >{_ORDER_FILE}", note="until the guest reboots"),),
        returns_bytes=_reports(guest, size_bytes + with_it),
        cost="more reports for the same memory",
    )


def _per_cpu(guest: GuestFacts, size_bytes: int) -> Finding:
    high = sum(zone.pcp_high_bytes for zone in guest.zones)
    return Finding(
        cause="per-cpu-lists",
        size_bytes=size_bytes,
        sentence="Free pages wait on the per-CPU lists of the guest's allocator, from which nothing is reported.",
        evidence=(
            f"{format_size(guest.pcp_bytes)} on these lists (count in zoneinfo), which may grow to {format_size(high)}",
        ),
        remedies=(
            Remedy(
                where="guest",
                command=f"echo 1024 >{_PCP_FILE}; for n in 1 2 3; do cat /proc/sys/vm/stat_refresh; done",
                note="until the guest reboots: the lists stay short, and are cut at once by Linux 6.7 and newer, else "
                "when pages are freed; 0 instead of 1024 is the kernel's own rule again",
            ),
        ),
        returns_bytes=_reports(guest, size_bytes),
        cost="the lock of the zone is taken more often",
    )


def _cache(guest: GuestFacts, size_bytes: int) -> Finding:
    size_bytes = max(0, size_bytes - guest.memory("Mapped"))
    return Finding(
        cause="page-cache",
        size_bytes=size_bytes,
        sentence="The guest keeps files that it has read in its page cache.",
        evidence=(
            f"on the lists of files {format_size(guest.memory('Active(file)', 'Inactive(file)'))} (meminfo)",
            f"dirty {format_size(guest.memory('Dirty', 'Writeback'))}",
            f"mapped by processes {format_size(guest.memory('Mapped'))} at most",
        ),
        remedies=(
            Remedy(where="guest", command="echo 1 >/proc/sys/vm/drop_caches", note="once; the cache fills again"),
            Remedy(where="libvirt", command="virsh setmem DOMAIN SIZE --live", note="a smaller balloon target"),
        ),
        returns_bytes=_reports(guest, size_bytes),
        cost="what is read again comes from the disk",
    )


def _dirty(guest: GuestFacts, size_bytes: int) -> Finding:
    return Finding(
        cause="page-cache-dirty",
        size_bytes=size_bytes,
        sentence="The guest has written files that are not on its disk yet.",
        evidence=(f"Dirty and Writeback {format_size(guest.memory('Dirty', 'Writeback'))} (meminfo)",),
        remedies=(Remedy(where="guest", command="sync; echo 1 >/proc/sys/vm/drop_caches", note="once"),),
        returns_bytes=_reports(guest, size_bytes),
        cost="writing it",
    )


def _pinned(guest: GuestFacts, size_bytes: int) -> Finding:
    return Finding(
        cause="page-cache-pinned",
        size_bytes=size_bytes,
        sentence="The guest has files in its page cache that it cannot drop: in a ramfs, or locked by a process.",
        evidence=(
            f"Cached and Buffers {format_size(guest.memory('Cached', 'Buffers'))}, less Shmem and the lists of files",
            f"Unevictable {format_size(guest.memory('Unevictable'))} (meminfo)",
        ),
        remedies=(
            Remedy(
                where="guest",
                command="grep ramfs /proc/mounts; grep -H VmLck: /proc/[0-9]*/status | sort -k2 -n",
                note="shows where; remove what is not needed",
            ),
        ),
        returns_bytes=_reports(guest, size_bytes),
        cost="the files, or what locks them",
    )


def _slab(guest: GuestFacts, size_bytes: int) -> Finding:
    return Finding(
        cause="slab-reclaimable",
        size_bytes=size_bytes,
        sentence="The guest's kernel keeps names of files and the like that it could forget.",
        evidence=(f"SReclaimable {format_size(guest.memory('SReclaimable'))} (meminfo)",),
        remedies=(Remedy(where="guest", command="echo 2 >/proc/sys/vm/drop_caches", note="once"),),
        cost="looking them up again",
    )


def _tmpfs(guest: GuestFacts, size_bytes: int) -> Finding:
    return Finding(
        cause="tmpfs",
        size_bytes=size_bytes,
        sentence="Files in the guest's tmpfs, or shared memory that no process maps, hold memory.",
        evidence=(
            f"Shmem {format_size(guest.memory('Shmem'))}, Mapped {format_size(guest.memory('Mapped'))} (meminfo)",
        ),
        remedies=(
            Remedy(where="guest", command="df -t tmpfs; ipcs -m", note="shows where; remove what is not needed"),
        ),
        returns_bytes=_reports(guest, size_bytes),
        cost="the files",
    )


def _pool(guest: GuestFacts, size_bytes: int) -> Finding:
    pools = ", ".join(
        f"{pool.free_pages} of {pool.pages} pages of {format_size(pool.page_bytes)}"
        for pool in guest.pools
        if pool.free_pages
    )
    in_use = max((pool.pages - pool.free_pages for pool in guest.pools if pool.free_pages), default=0)
    return Finding(
        cause="huge-page-pool",
        size_bytes=size_bytes,
        sentence="The guest has huge pages set aside that nobody uses; a pool is not free memory, and is not reported.",
        evidence=(f"free in pools: {pools} (/sys/kernel/mm/hugepages)",),
        remedies=(
            Remedy(where="guest", command=f"echo {in_use} >/proc/sys/vm/nr_hugepages", note="of the default size"),
        ),
        returns_bytes=_reports(guest, size_bytes),
        cost="who wants huge pages later may not get them",
    )


def _deferred_split(guest: GuestFacts, size_bytes: int) -> Finding:
    whole = () if guest.partial_bytes is None else (f"these pages have {format_size(guest.partial_bytes)} as a whole",)
    return Finding(
        cause="deferred-split",
        size_bytes=size_bytes,
        sentence=f"{format_size(size_bytes)} are parts of huge pages that processes have given back: the kernel splits "
        "such a page only when it is short of memory, and until then no part is free.",
        evidence=(
            "Active(anon) and Inactive(anon), which count whole pages, less AnonPages, Shmem and SwapCached (meminfo)",
            *(f"{each} (nr_anon_partially_mapped, /sys/kernel/mm/transparent_hugepage)" for each in whole),
        ),
        remedies=(
            Remedy(
                where="guest",
                command=f"echo {_PARTS_ORDER} >{_ORDER_FILE}; echo 2 >/proc/sys/vm/drop_caches",
                note="once: it runs the kernel's shrinkers, that of these pages among them; a part is less than a huge "
                "page, so it is reported only at a lower order",
            ),
            Remedy(where="guest", command="echo madvise >/sys/kernel/mm/transparent_hugepage/enabled"),
        ),
        cost="looking up names of files again, and more reports for the same memory",
    )


def _in_use(guest: GuestFacts, size_bytes: int) -> Finding:
    return Finding(
        cause="in-use",
        size_bytes=size_bytes,
        sentence="It is in use: most of what is held is memory of the guest's processes.",
        evidence=(
            f"AnonPages {format_size(guest.memory('AnonPages'))} (meminfo)",
            *(
                f"{each.name} {format_size(each.charged_bytes)}, of that processes {format_size(each.process_bytes)} "
                f"(a control group of level {each.level})"
                for each in guest.consumers[:3]
            ),
        ),
        remedies=(
            Remedy(where="guest", command="ps aux --sort -rss; systemd-cgtop -m -b -n 1", note="shows who has it"),
        ),
        cost="what those processes do",
    )


def _balloon(_: GuestFacts, size_bytes: int) -> Finding:
    return Finding(
        cause="balloon-inflated",
        size_bytes=size_bytes,
        sentence=f"The balloon keeps {format_size(size_bytes)} from the guest; they went back to the host, and the "
        "guest has that much less until it is deflated.",
        evidence=("balloon_inflate less balloon_deflate (vmstat)",),
        remedies=(
            Remedy(where="QEMU", command="balloon SIZE", note="the whole memory as SIZE"),
            Remedy(where="libvirt", command="virsh setmem DOMAIN SIZE --live"),
            Remedy(where="pagetide", command="pagetide ctl set GUEST target=none"),
        ),
        returns_bytes=None,
        cost="the host must have as much to give once the guest uses it",
    )
