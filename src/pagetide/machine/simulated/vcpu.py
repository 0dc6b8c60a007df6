"""What the vCPUs of a simulated guest run: a stretch of operations in one kernel, up to the next event.

The counterpart of guest/vcpu.py, over the same zone. The vCPU whose turn is next in simulated time runs its next
operation; every operation moves its vCPU's clock by what it costs, and those that take the zone lock wait for whoever
has it. Memory is metadata (memory/metadata.py): a first touch, a refault and a missing stamp are seen in its bits.
"""

from typing import Any

from pagetide.atomics import load_i64
from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.pcp import pcp_blocks
from pagetide.guest.allocator.zone_layout import (
    LOCK_CONTENDED,
    LOCK_HOLD_NS,
    LOCK_HOLD_NS_MAX,
    LOCK_WAIT_NS,
    LOCK_WAIT_NS_MAX,
    PCP_ORDERS,
    REFAULTED_PAGES,
    STAMP_ERRORS,
    VCPU_WORDS,
    vcpu_base,
)
from pagetide.guest.vcpu import (
    ACT_DRAIN,
    ACT_END,
    ACT_SLEEP,
    BAD_FREE,
    DONE,
    IDLE_S,
    NO_MEMORY,
    NOT_HAD,
    SLOT_WANTED,
    WORKER_WANTED,
    drain_idle,
    next_act,
    wanted,
)
from pagetide.jit import kernel
from pagetide.machine.costs import PS_PER_S
from pagetide.machine.simulated.loop import NEVER_PS
from pagetide.memory import metadata
from pagetide.memory.metadata import stamp_metadata, unstamped_pages

TIME_UP = -1
"""Nothing is to be run before the time given."""

PIECE_WANTED = -2
"""A vCPU has run the operations that there are, and has more."""

# A vCPU's row.
CLOCK_PS = 0
"""When it goes on; NEVER_PS while it waits for someone."""
CURSOR = 1
END = 2
FROM_PS = 3
"""What is due by then is to run as fast as it can, and is never behind."""
BEHIND_PS = 4
"""The longest that another operation began after it was due."""
DRAINED = 5
"""Whether it drained its per-CPU list since its last operation."""
MORE = 6
"""Whether more are to follow on the operations up to END."""
VCPU_COLUMNS = 7

_IDLE_PS = round(IDLE_S * PS_PER_S)

# The costs, in picoseconds.
ORDER0_PS = 0
MOVED_PAGE_PS = 1
BLOCK_PS = 2
STAMP_PS = 3
CHECK_PS = 4
SMALL_FAULT_PS = 5
HUGE_FAULT_PS = 6
COSTS = 7

# What is shared.
LOCK_FREE_PS = 0
"""When the zone lock is free again."""
WHO = 1
"""The vCPU because of which a stretch ended."""
OPERATIONS = 2
"""Operations that were run in all."""
NEXT_PS = 3
"""After TIME_UP, when a vCPU goes on next; NEVER_PS if none does."""
BUSY_PS = 4
"""How long vCPUs were at work, in all; whoever reads it sets it back."""
SHARED_WORDS = 5

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
def unfinished(vcpus: Any) -> int:
    """How many vCPUs are not at their end."""
    count = 0
    for vcpu in range(vcpus.shape[0]):
        count += int(vcpus[vcpu, CURSOR] <= vcpus[vcpu, END])
    return count


@kernel
def at_work(vcpus: Any) -> int:
    """How many of those wait for nobody."""
    count = 0
    for vcpu in range(vcpus.shape[0]):
        count += int(vcpus[vcpu, CURSOR] <= vcpus[vcpu, END] and vcpus[vcpu, CLOCK_PS] < NEVER_PS)
    return count


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
    if not words[PCP_ORDERS] >> order & 1:
        return hold_zone_lock(words, shared, now_ps, costs[BLOCK_PS])
    now_ps += costs[ORDER0_PS]
    moved = pcp_blocks(words, vcpu) - listed
    if moved != 0:
        now_ps = hold_zone_lock(words, shared, now_ps, abs(moved) * costs[MOVED_PAGE_PS])
    return now_ps


@kernel
def _allocate(
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
    """Allocate a block into a slot and stamp it, or leave the slot as it was; when that is done."""
    base = _VCPU_0 + vcpu * VCPU_WORDS
    listed = pcp_blocks(words, vcpu) - 1
    pfn = allocate(words, pages, vcpu, order)
    now_ps = _allocator_ps(words, shared, costs, vcpu, order, listed, now_ps)
    if pfn >= 0:
        now_ps += _stamp(words, base, memory_address, costs, pfn, order)
        slots[slot] = pfn
    return now_ps


@kernel
def _free(
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
def _piece_wanted(vcpus: Any, vcpu: int) -> bool:
    """Whether a vCPU has to be given operations before it can be said what it does next."""
    return vcpus[vcpu, MORE] != 0 and vcpus[vcpu, CURSOR] == vcpus[vcpu, END]  # type: ignore[no-any-return]


@kernel
def _next_act(vcpus: Any, vcpu: int, due_ps: Any) -> int:
    """What a vCPU does next, as guest/vcpu.py has it."""
    cursor = vcpus[vcpu, CURSOR]
    left = vcpus[vcpu, END] - cursor
    due_in_ps = due_ps[cursor] - vcpus[vcpu, CLOCK_PS] if left > 0 else 0
    return next_act(left, due_in_ps, _IDLE_PS, vcpus[vcpu, DRAINED])


@kernel
def _begins_ps(vcpus: Any, vcpu: int, due_ps: Any, act: int) -> int:
    """When what a vCPU does next begins; behind a sleep, that is the operation."""
    if act == ACT_SLEEP:
        return due_ps[vcpus[vcpu, CURSOR]]  # type: ignore[no-any-return]
    return vcpus[vcpu, CLOCK_PS]  # type: ignore[no-any-return]


@kernel
def _starts_ps(vcpus: Any, vcpu: int, due_ps: Any) -> int:
    """When a vCPU has its next turn, for an operation or for its end."""
    if vcpus[vcpu, CURSOR] < vcpus[vcpu, END]:
        return _begins_ps(vcpus, vcpu, due_ps, _next_act(vcpus, vcpu, due_ps))
    return vcpus[vcpu, CLOCK_PS]  # type: ignore[no-any-return]


@kernel
def _run_one(
    words: Any,
    pages: Any,
    memory_address: int,
    vcpus: Any,
    vcpu: int,
    operations: Any,
    due_ps: Any,
    slots: Any,
    costs: Any,
    shared: Any,
    until_ps: int,
) -> int:
    """Run one vCPU's operations that begin before `until_ps`; TIME_UP, or why it stopped as in guest/vcpu.py."""
    while True:
        if _piece_wanted(vcpus, vcpu):
            return PIECE_WANTED
        act = _next_act(vcpus, vcpu, due_ps)
        if act == ACT_END:
            return DONE
        left = vcpus[vcpu, CURSOR] < vcpus[vcpu, END]
        if left and _begins_ps(vcpus, vcpu, due_ps, act) >= until_ps:
            return TIME_UP
        if act == ACT_SLEEP:
            vcpus[vcpu, CLOCK_PS] = due_ps[vcpus[vcpu, CURSOR]]
            continue
        if act == ACT_DRAIN:
            outcome = _drain(words, pages, vcpus, vcpu, costs, shared)
        else:
            outcome = _run_next(
                words, pages, memory_address, vcpus, vcpu, operations, due_ps, slots, costs, shared
            )  # fmt: skip
        if outcome == SLOT_WANTED:  # another vCPU is late: this one looks again when that one has its turn
            vcpus[vcpu, CLOCK_PS] = until_ps
            return TIME_UP
        if outcome != DONE:
            return outcome


@kernel
def _run_next(
    words: Any,
    pages: Any,
    memory_address: int,
    vcpus: Any,
    vcpu: int,
    operations: Any,
    due_ps: Any,
    slots: Any,
    costs: Any,
    shared: Any,
) -> int:
    """Run one vCPU's next operation, which is due; DONE, or why the vCPU stops at or behind it."""
    cursor, start_ps = vcpus[vcpu, CURSOR], vcpus[vcpu, CLOCK_PS]
    if due_ps[cursor] > vcpus[vcpu, FROM_PS]:
        vcpus[vcpu, BEHIND_PS] = max(vcpus[vcpu, BEHIND_PS], start_ps - due_ps[cursor])
    vcpus[vcpu, DRAINED] = 0
    operation = operations[cursor]
    slot = operation["slot"]
    order = int(operation["order"])
    allocates = operation["kind"] == ALLOCATE
    if (slots[slot] == -1) != allocates:
        return SLOT_WANTED
    if allocates:
        now_ps = _allocate(words, pages, memory_address, vcpu, order, slots, slot, costs, shared, start_ps)
    else:
        now_ps = _free(words, pages, memory_address, vcpu, order, slots, slot, costs, shared, start_ps)
        if now_ps < 0:
            return BAD_FREE
    vcpus[vcpu, CLOCK_PS] = now_ps
    shared[BUSY_PS] += now_ps - start_ps
    if allocates and slots[slot] < 0:
        return NO_MEMORY
    vcpus[vcpu, CURSOR] = cursor + 1
    shared[OPERATIONS] += 1
    return wanted(words, vcpu)


@kernel
def _drain(words: Any, pages: Any, vcpus: Any, vcpu: int, costs: Any, shared: Any) -> int:
    """Drain an idle vCPU's per-CPU lists, which takes time if there is something on them; who is wanted then."""
    listed = pcp_blocks(words, vcpu)
    start_ps = vcpus[vcpu, CLOCK_PS]
    vcpus[vcpu, DRAINED] = 1
    outcome = drain_idle(words, pages, vcpu)
    if listed > 0:
        vcpus[vcpu, CLOCK_PS] = hold_zone_lock(words, shared, start_ps, listed * costs[MOVED_PAGE_PS])
        shared[BUSY_PS] += vcpus[vcpu, CLOCK_PS] - start_ps
    return outcome


@kernel
def run_vcpus(
    words: Any,
    pages: Any,
    memory_address: int,
    vcpus: Any,
    operations: Any,
    due_ps: Any,
    slots: Any,
    costs: Any,
    shared: Any,
    until_ps: int,
) -> int:
    """Run all vCPUs' operations that begin before `until_ps`, each in its turn.

    Args:
        words: the zone's words.
        pages: its page records.
        memory_address: where the memory's metadata is.
        vcpus: int64 array, a row of VCPU_COLUMNS for each vCPU. A row is at its end once CURSOR has passed END: a vCPU
            that has run all of its operations stops once more, as DONE or because the worker is wanted.
        operations: array of OPERATION, all vCPUs', as many of each as there are at a time.
        due_ps: int64 array as long: no operation begins before its time.
        slots: int64 array of all vCPUs' slots, as for `run_operations`.
        costs: int64 array of COSTS.
        shared: int64 array of SHARED_WORDS; WHO receives the vCPU that stopped, NEXT_PS when one goes on.
        until_ps: the time of the next event.

    Returns:
        TIME_UP, PIECE_WANTED, or why a vCPU stopped: a constant of guest/vcpu.py.
    """
    while True:
        next_ps = until_ps
        second_ps = until_ps
        earliest_ps = NEVER_PS
        chosen = -1
        for vcpu in range(vcpus.shape[0]):
            if vcpus[vcpu, CURSOR] > vcpus[vcpu, END] or vcpus[vcpu, CLOCK_PS] >= NEVER_PS:
                continue
            if _piece_wanted(vcpus, vcpu):
                shared[WHO] = vcpu
                return PIECE_WANTED
            start_ps = _starts_ps(vcpus, vcpu, due_ps)
            earliest_ps = min(earliest_ps, start_ps)
            if start_ps < next_ps:
                second_ps = next_ps
                next_ps = start_ps
                chosen = vcpu
            elif start_ps < second_ps:
                second_ps = start_ps
        if chosen < 0:
            shared[NEXT_PS] = earliest_ps
            return TIME_UP
        # Of two that are due at once the first has its turn, and then the other.
        until_here_ps = max(second_ps, next_ps + 1)
        outcome = _run_one(
            words, pages, memory_address, vcpus, chosen, operations, due_ps, slots, costs, shared, until_here_ps
        )
        if outcome in (DONE, WORKER_WANTED) and _next_act(vcpus, chosen, due_ps) == ACT_END:
            vcpus[chosen, CURSOR] = vcpus[chosen, END] + 1
        if outcome != TIME_UP:
            shared[WHO] = chosen
            return outcome
