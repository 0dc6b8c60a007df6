"""Per-CPU lists: each vCPU's own stack of order-0 pages in front of the buddy allocator.

Follows Linux's mm/page_alloc.c (6.1): refilled and drained `batch` pages at a time, drained when longer than `high`,
the pages freed longest ago going first. Each list has its own lock, which only a drain from outside ever contends
for. Lock order: a list's lock, then the zone's.
"""

from typing import Any

from pagetide.guest.allocator.buddy import return_block, take_block
from pagetide.guest.allocator.request import notify_free
from pagetide.guest.allocator.zone_layout import (
    ALLOCATED,
    NR_VCPUS,
    PCP,
    PCP_BATCH,
    PCP_COUNT,
    PCP_HIGH,
    PCP_LOCK,
    PCP_PAGES,
    RECORD_WORDS,
    STATE,
    VCPU_WORDS,
    ZONE_LOCK,
    vcpu_base,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel

_VCPU_0 = vcpu_base(0)


@kernel
def pcp_take(words: Any, pages: Any, vcpu: int) -> int:
    """Allocate one page from this vCPU's list, refilling it when empty; -1 if there is none."""
    base = _VCPU_0 + vcpu * VCPU_WORDS
    lock(words, base + PCP_LOCK)
    if words[base + PCP_COUNT] == 0:
        _refill(words, pages, base)
    count = words[base + PCP_COUNT] - 1
    pfn = -1
    if count >= 0:
        words[base + PCP_COUNT] = count
        pfn = words[base + PCP_PAGES + count]
        pages[pfn * RECORD_WORDS + STATE] = ALLOCATED
    unlock(words, base + PCP_LOCK)
    return pfn


@kernel
def pcp_return(words: Any, pages: Any, vcpu: int, pfn: int) -> None:
    """Free one page, which the caller has checked to be allocated, to this vCPU's list."""
    base = _VCPU_0 + vcpu * VCPU_WORDS
    lock(words, base + PCP_LOCK)
    pages[pfn * RECORD_WORDS + STATE] = PCP
    count = words[base + PCP_COUNT]
    words[base + PCP_PAGES + count] = pfn
    words[base + PCP_COUNT] = count + 1
    if count + 1 > words[PCP_HIGH]:
        _drain(words, pages, vcpu, words[PCP_BATCH])
    unlock(words, base + PCP_LOCK)


@kernel
def pcp_drain(words: Any, pages: Any, vcpu: int) -> None:
    """Give a vCPU's whole list back to the buddy allocator, a batch under each hold of the zone lock."""
    base = _VCPU_0 + vcpu * VCPU_WORDS
    lock(words, base + PCP_LOCK)
    while words[base + PCP_COUNT] > 0:
        _drain(words, pages, vcpu, words[PCP_BATCH])
    unlock(words, base + PCP_LOCK)


@kernel
def pcp_drain_all(words: Any, pages: Any) -> None:
    """Drain every vCPU's list, as an allocation does before it fails (`drain_all_pages`)."""
    for vcpu in range(words[NR_VCPUS]):
        pcp_drain(words, pages, vcpu)


@kernel
def _refill(words: Any, pages: Any, base: int) -> None:
    batch = words[PCP_BATCH]
    taken = 0
    lock(words, ZONE_LOCK)
    while taken < batch:
        pfn = take_block(words, pages, 0, PCP)
        if pfn < 0:
            break
        taken += 1
        words[base + PCP_PAGES + batch - taken] = pfn
    unlock(words, ZONE_LOCK)
    # The stack grows upwards and pages come out in the order in which the buddy allocator gave them.
    if taken < batch:
        for index in range(taken):
            words[base + PCP_PAGES + index] = words[base + PCP_PAGES + batch - taken + index]
    words[base + PCP_COUNT] = taken


@kernel
def _drain(words: Any, pages: Any, vcpu: int, most: int) -> None:
    base = _VCPU_0 + vcpu * VCPU_WORDS
    count = words[base + PCP_COUNT]
    drained = min(count, most)
    lock(words, ZONE_LOCK)
    for index in range(drained):
        pfn = words[base + PCP_PAGES + index]
        merged = return_block(words, pages, pfn, 0, False, False)
        notify_free(words, vcpu, pfn & ~((1 << merged) - 1), merged)
    unlock(words, ZONE_LOCK)
    for index in range(count - drained):
        words[base + PCP_PAGES + index] = words[base + PCP_PAGES + drained + index]
    words[base + PCP_COUNT] = count - drained
