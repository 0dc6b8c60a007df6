"""What the vCPUs of a simulated guest run: a stretch of operations in one kernel, up to the next event.

The counterpart of guest/vcpu.py, over the same zone. The vCPU whose turn is next in simulated time runs its next
operation, which moves its clock by what it costs (operations.py).
"""

from typing import Any

from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.guest.vcpu import (
    ACT_DRAIN,
    ACT_END,
    ACT_SLEEP,
    BAD_FREE,
    DONE,
    IDLE_S,
    NO_MEMORY,
    SLOT_WANTED,
    WORKER_WANTED,
    next_act,
    wanted,
)
from pagetide.jit import kernel
from pagetide.machine.costs import PS_PER_S
from pagetide.machine.simulated.loop import NEVER_PS
from pagetide.machine.simulated.operations import allocate_priced, drain_priced, free_priced
from pagetide.machine.simulated.vcpu_layout import (
    BEHIND_PS,
    BUSY_PS,
    CLOCK_PS,
    CURSOR,
    DRAINED,
    END,
    FROM_PS,
    NEXT_PS,
    OPERATIONS,
    WHO,
)

TIME_UP = -1
"""Nothing is to be run before the time given."""

_IDLE_PS = round(IDLE_S * PS_PER_S)


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
            outcome = drain_priced(words, pages, vcpus, vcpu, costs, shared)
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
        now_ps = allocate_priced(words, pages, memory_address, vcpu, order, slots, slot, costs, shared, start_ps)
    else:
        now_ps = free_priced(words, pages, memory_address, vcpu, order, slots, slot, costs, shared, start_ps)
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
        operations: array of OPERATION, all vCPUs'.
        due_ps: int64 array as long: no operation begins before its time.
        slots: int64 array of all vCPUs' slots, as for `run_operations`.
        costs: int64 array of COSTS.
        shared: int64 array of SHARED_WORDS; WHO receives the vCPU that stopped, NEXT_PS when one goes on.
        until_ps: the time of the next event.

    Returns:
        TIME_UP, or why a vCPU stopped: a constant of guest/vcpu.py.
    """
    while True:
        next_ps = until_ps
        second_ps = until_ps
        earliest_ps = NEVER_PS
        chosen = -1
        for vcpu in range(vcpus.shape[0]):
            cursor = vcpus[vcpu, CURSOR]
            start_ps = vcpus[vcpu, CLOCK_PS]
            if cursor > vcpus[vcpu, END] or start_ps >= NEVER_PS:
                continue
            if cursor < vcpus[vcpu, END]:
                start_ps = _begins_ps(vcpus, vcpu, due_ps, _next_act(vcpus, vcpu, due_ps))
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
