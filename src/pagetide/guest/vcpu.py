"""What a vCPU runs: a stretch of a workload's operations, on real memory, in one kernel without the GIL.

Every page of an allocated block is stamped with its frame number and a generation that counts the allocations of that
frame. The stamp is checked before the block is freed: a wrong one means that memory in use was discarded or given out
twice. A frame that was stamped before and reads as zero when it is next allocated was returned in between: its first
touch is a refault.
"""

from typing import Any

from pagetide.atomics import atomic_add, atomic_load, atomic_store, load_i64, store_i64
from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.pcp import pcp_drain
from pagetide.guest.allocator.zone_layout import (
    FALSE_OOMS,
    GENERATION,
    HINT_COUNT,
    ORDER_MASK,
    RECORD_WORDS,
    REFAULTED_PAGES,
    STAMP_ERRORS,
    STOP,
    SYNC_HINTS,
    VCPU_WORDS,
    WAIT_HOST_NS,
    WAIT_HOST_NS_MAX,
    WAITS_HOST,
    WAKE,
    vcpu_base,
)
from pagetide.jit import kernel
from pagetide.units import PAGE_SHIFT

DONE = 0
STOPPED = 1
WORKER_WANTED = 2
NO_MEMORY = 3
BAD_FREE = 4
HOST_WANTED = 5
SLOT_WANTED = 6
"""Another vCPU is late: it has not filled the slot that is to be freed, or not freed the one that is to be filled."""

NOT_HAD = -2
"""In a slot: its allocation failed, and nothing is there to be freed."""

IDLE_S = 0.1
"""A vCPU with nothing to do for this long drains its per-CPU list."""

# What a vCPU does next.
ACT_RUN = 0
ACT_DRAIN = 1
ACT_SLEEP = 2
ACT_END = 3

_VCPU_0 = vcpu_base(0)
_GENERATION_SHIFT = 32
_GENERATION_MASK = 0x7FFF_FFFF


@kernel
def stamp_block(words: Any, pages: Any, base: int, ram_address: int, pfn: int, order: int) -> None:
    """Touch and stamp every page of a block just allocated, counting refaults."""
    for page in range(pfn, pfn + (1 << order)):
        address = ram_address + (page << PAGE_SHIFT)
        generation = int(pages[page * RECORD_WORDS + GENERATION]) & _GENERATION_MASK
        found = load_i64(address)
        if generation != 0:
            if found == 0:
                words[base + REFAULTED_PAGES] += 1
            elif found != generation << _GENERATION_SHIFT | page:
                words[base + STAMP_ERRORS] += 1
        generation = generation + 1 & _GENERATION_MASK
        pages[page * RECORD_WORDS + GENERATION] = generation
        store_i64(address, generation << _GENERATION_SHIFT | page)


@kernel
def check_block(words: Any, pages: Any, base: int, ram_address: int, pfn: int, order: int) -> None:
    """Check the stamp of every page of a block about to be freed."""
    for page in range(pfn, pfn + (1 << order)):
        generation = int(pages[page * RECORD_WORDS + GENERATION])
        if load_i64(ram_address + (page << PAGE_SHIFT)) != generation << _GENERATION_SHIFT | page:
            words[base + STAMP_ERRORS] += 1


@kernel
def host_wanted(words: Any, vcpu: int) -> bool:
    """Whether this vCPU has a batch full of hints that it is to report itself, as in the `sync` design."""
    if words[SYNC_HINTS] == 0:
        return False
    return words[_VCPU_0 + vcpu * VCPU_WORDS + HINT_COUNT] >= words[SYNC_HINTS]  # type: ignore[no-any-return]


@kernel
def wanted(words: Any, vcpu: int) -> int:
    """Who is wanted after an operation or a drain: HOST_WANTED, WORKER_WANTED, or DONE for nobody."""
    if host_wanted(words, vcpu):
        return HOST_WANTED
    return WORKER_WANTED if atomic_load(words, WAKE) != 0 else DONE


@kernel
def next_act(left: int, due_in: Any, idle: Any, drained: Any) -> int:
    """What a vCPU does next: run what is due, drain its per-CPU list, sleep until something is due, or end.

    Args:
        left: operations that are left to it.
        due_in: how long until the first of them is due; 0 or less where it is.
        idle: for how long it must have nothing to do to drain its list; in the same unit.
        drained: whether it has, since its last operation.
    """
    if left > 0 and due_in <= 0:
        return ACT_RUN
    if not drained and (left == 0 or due_in >= idle):
        return ACT_DRAIN
    return ACT_SLEEP if left > 0 else ACT_END


@kernel
def drain_idle(words: Any, pages: Any, vcpu: int) -> int:
    """Drain an idle vCPU's per-CPU list; who is wanted then, as of `wanted`.

    It keeps no pages to itself: they would hold whole blocks apart (Linux's vmstat work does this). Nobody else would
    report what they merged into, where vCPUs report themselves.
    """
    pcp_drain(words, pages, vcpu)
    return wanted(words, vcpu)


@kernel
def note_wait(words: Any, vcpu: int, waited_ns: int) -> None:
    """Account for the time that a vCPU waited for the host."""
    base = _VCPU_0 + vcpu * VCPU_WORDS
    words[base + WAITS_HOST] += 1
    words[base + WAIT_HOST_NS] += waited_ns
    words[base + WAIT_HOST_NS_MAX] = max(words[base + WAIT_HOST_NS_MAX], waited_ns)


@kernel
def note_false_oom(words: Any) -> None:
    """Count an allocation that failed although what is out for reporting could have served it."""
    atomic_add(words, FALSE_OOMS, 1)


@kernel
def run_operations(
    words: Any, pages: Any, ram_address: int, vcpu: int, operations: Any, slots: Any, cursor: Any, end: int
) -> int:
    """Run operations from `cursor[0]` up to `end`, moving the cursor; why it stopped, one of the constants above.

    Args:
        words: the zone's words.
        pages: its page records.
        ram_address: where frame 0 is mapped.
        vcpu: who runs them.
        operations: array of OPERATION.
        slots: int64 array, all vCPUs' blocks by slot, -1 where there is none, NOT_HAD where there should be one.
        cursor: int64 array of one.
        end: operations before this index are run.
    """
    base = _VCPU_0 + vcpu * VCPU_WORDS
    while cursor[0] < end:
        operation = operations[cursor[0]]
        slot = operation["slot"]
        asked = int(operation["order"])
        order = asked & ORDER_MASK
        pfn = atomic_load(slots, slot)
        if (pfn == -1) != (operation["kind"] == ALLOCATE):
            return SLOT_WANTED
        if operation["kind"] == ALLOCATE:
            pfn = allocate(words, pages, vcpu, asked)
            if pfn < 0:
                return NO_MEMORY
            stamp_block(words, pages, base, ram_address, pfn, order)
            atomic_store(slots, slot, pfn)
        else:
            if pfn >= 0:
                check_block(words, pages, base, ram_address, pfn, order)
            if pfn != NOT_HAD and free(words, pages, vcpu, pfn, order) < 0:
                return BAD_FREE
            atomic_store(slots, slot, -1)
        cursor[0] += 1
        outcome = wanted(words, vcpu)
        if outcome != DONE:
            return outcome
        if atomic_load(words, base + STOP) != 0:
            return STOPPED
    return DONE
