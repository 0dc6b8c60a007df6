"""What one operation of a simulated vCPU does, and when it is done: each moves a clock by what it costs.

Who takes the zone lock waits for whoever has it. Memory is metadata (memory/metadata.py): a first touch, a refault and
a missing stamp are seen in its bits.
"""

from typing import Any

from pagetide.atomics import load_i64
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.pcp import has_list, pcp_blocks
from pagetide.guest.allocator.zone_layout import (
    LOCK_CONTENDED,
    LOCK_HOLD_NS,
    LOCK_HOLD_NS_MAX,
    LOCK_WAIT_NS,
    LOCK_WAIT_NS_MAX,
    ORDER_MASK,
    REFAULTED_PAGES,
    STAMP_ERRORS,
    VCPU_WORDS,
    vcpu_base,
)
from pagetide.guest.vcpu import NOT_HAD, drain_idle
from pagetide.jit import kernel
from pagetide.machine.simulated.vcpu_layout import (
    BLOCK_PS,
    BUSY_PS,
    CHECK_PS,
    CLOCK_PS,
    DRAINED,
    HUGE_FAULT_PS,
    LOCK_FREE_PS,
    MOVED_PAGE_PS,
    ORDER0_PS,
    SMALL_FAULT_PS,
    STAMP_PS,
)
from pagetide.memory import metadata
from pagetide.memory.metadata import stamp_metadata, unstamped_pages

_VCPU_0 = vcpu_base(0)
_SMALL_FAULTS = 8 * metadata.SMALL_FAULTS
_HUGE_FAULTS = 8 * metadata.HUGE_FAULTS
_REFAULTED_PAGES = 8 * metadata.REFAULTED_PAGES


@kernel
def hold_zone_lock(words: Any, shared: Any, now_ps: int, hold_ps: int) -> int:
    """Take the zone lock when it is free, keep it for so long, and account for the wait; when it is released."""
    waited_ps = shared[LOCK_FREE_PS] - now_ps
    if waited_ps > 0:
        waited_ns = waited_ps // 1000
        words[LOCK_CONTENDED] += 1
        words[LOCK_WAIT_NS] += waited_ns
        words[LOCK_WAIT_NS_MAX] = max(words[LOCK_WAIT_NS_MAX], waited_ns)
        now_ps += waited_ps
    shared[LOCK_FREE_PS] = now_ps + hold_ps
    return now_ps + hold_ps


@kernel
def hold_long(words: Any, shared: Any, now_ps: int, hold_ps: int) -> int:
    """The same for whoever reports, whose holds are accounted for as well."""
    words[LOCK_HOLD_NS] += hold_ps // 1000
    words[LOCK_HOLD_NS_MAX] = max(words[LOCK_HOLD_NS_MAX], hold_ps // 1000)
    return hold_zone_lock(words, shared, now_ps, hold_ps)


@kernel
def _stamp(words: Any, base: int, memory_address: int, costs: Any, pfn: int, order: int) -> int:
    """Touch and stamp every page of a block just allocated; what that costs."""
    small = load_i64(memory_address + _SMALL_FAULTS)
    huge = load_i64(memory_address + _HUGE_FAULTS)
    refaulted = load_i64(memory_address + _REFAULTED_PAGES)
    stamp_metadata(memory_address, pfn, 1 << order)
    small = load_i64(memory_address + _SMALL_FAULTS) - small
    huge = load_i64(memory_address + _HUGE_FAULTS) - huge
    words[base + REFAULTED_PAGES] += load_i64(memory_address + _REFAULTED_PAGES) - refaulted
    return (costs[STAMP_PS] << order) + small * costs[SMALL_FAULT_PS] + huge * costs[HUGE_FAULT_PS]  # type: ignore[no-any-return]


@kernel
def _allocator_ps(words: Any, shared: Any, costs: Any, vcpu: int, order: int, listed: int, now_ps: int) -> int:
    """When an allocation or free is done after which, without the zone, `listed` blocks would be on per-CPU lists."""
    if not has_list(words, order):
        return hold_zone_lock(words, shared, now_ps, costs[BLOCK_PS])
    now_ps += costs[ORDER0_PS]
    moved = pcp_blocks(words, vcpu) - listed
    if moved != 0:
        now_ps = hold_zone_lock(words, shared, now_ps, abs(moved) * costs[MOVED_PAGE_PS])
    return now_ps


@kernel
def allocate_priced(
    words: Any,
    pages: Any,
    memory_address: int,
    vcpu: int,
    wanted: int,
    slots: Any,
    slot: int,
    costs: Any,
    shared: Any,
    now_ps: int,
) -> int:
    """Allocate what is wanted into a slot and stamp it, or leave the slot as it was; when that is done."""
    base, order = _VCPU_0 + vcpu * VCPU_WORDS, wanted & ORDER_MASK
    listed = pcp_blocks(words, vcpu) - 1
    pfn = allocate(words, pages, vcpu, wanted)
    now_ps = _allocator_ps(words, shared, costs, vcpu, order, listed, now_ps)
    if pfn >= 0:
        now_ps += _stamp(words, base, memory_address, costs, pfn, order)
        slots[slot] = pfn
    return now_ps


@kernel
def free_priced(
    words: Any,
    pages: Any,
    memory_address: int,
    vcpu: int,
    order: int,
    slots: Any,
    slot: int,
    costs: Any,
    shared: Any,
    now_ps: int,
) -> int:
    """Check and free what is in a slot; when that is done, or -1 if it cannot be freed."""
    base = _VCPU_0 + vcpu * VCPU_WORDS
    pfn = slots[slot]
    slots[slot] = -1
    if pfn == NOT_HAD:
        return now_ps
    listed = pcp_blocks(words, vcpu) + 1
    if pfn >= 0:
        now_ps += costs[CHECK_PS] << order
        words[base + STAMP_ERRORS] += unstamped_pages(memory_address, pfn, 1 << order)
    if free(words, pages, vcpu, pfn, order) < 0:
        return -1
    return _allocator_ps(words, shared, costs, vcpu, order, listed, now_ps)


@kernel
def drain_priced(words: Any, pages: Any, vcpus: Any, vcpu: int, costs: Any, shared: Any) -> int:
    """Drain an idle vCPU's per-CPU lists, which takes time if there is something on them; who is wanted then."""
    listed = pcp_blocks(words, vcpu)
    start_ps = vcpus[vcpu, CLOCK_PS]
    vcpus[vcpu, DRAINED] = 1
    outcome = drain_idle(words, pages, vcpu)
    if listed > 0:
        vcpus[vcpu, CLOCK_PS] = hold_zone_lock(words, shared, start_ps, listed * costs[MOVED_PAGE_PS])
        shared[BUSY_PS] += vcpus[vcpu, CLOCK_PS] - start_ps
    return outcome
