"""What a vCPU runs: a stretch of a workload's operations, on real memory, in one kernel without the GIL.

Every page of an allocated block is stamped with its frame number and a generation that counts the allocations of that
frame. The stamp is checked before the block is freed: a wrong one means that memory in use was discarded or given out
twice. A frame that was stamped before and reads as zero when it is next allocated was discarded in between: its first
touch is a refault.
"""

from typing import Any

from pagetide.atomics import atomic_load, atomic_store, load_i64, store_i64
from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.zone_layout import (
    GENERATION,
    HINT_COUNT,
    RECORD_WORDS,
    REFAULTED_PAGES,
    STAMP_ERRORS,
    STOP,
    SYNC_HINTS,
    VCPU_WORDS,
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
    """Who is to act before this vCPU's next operation: HOST_WANTED, WORKER_WANTED, or DONE if nobody is."""
    if host_wanted(words, vcpu):
        return HOST_WANTED
    return WORKER_WANTED if atomic_load(words, WAKE) != 0 else DONE


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
        order = int(operation["order"])
        pfn = atomic_load(slots, slot)
        if (pfn == -1) != (operation["kind"] == ALLOCATE):
            return SLOT_WANTED
        if operation["kind"] == ALLOCATE:
            pfn = allocate(words, pages, vcpu, order)
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
