"""The reporting request: how the free path tells the worker what was freed, and that it should run.

Follows Linux's mm/page_reporting.c (6.1): `__page_reporting_request`, and the states of `page_reporting_process`. A
request made while a pass runs is seen at its end. What Linux does by queueing delayed work from inside the free path is
split in two here, since no lock may be held across a system call: the free path sets WAKE, and the vCPU wakes the
worker once it is out of the lock. Where passes go by the clock (WAKE_BLOCKS is 0) a request wakes nobody.

Designs that live on notifications have the free path record a hint of each block: as a bit of the candidate map (Lal's
v10 to v12), or in the freeing vCPU's bounded array (v8), where a full array drops it.
"""

from typing import Any

from pagetide.atomics import atomic_compare_exchange, atomic_exchange, atomic_load, atomic_store
from pagetide.guest.allocator.candidates import map_set
from pagetide.guest.allocator.zone_layout import (
    DROPPED_HINTS,
    DROPPED_PAGES,
    HINT_BLOCKS,
    HINT_COUNT,
    HINTS,
    HINTS_MAX,
    NR_FREE,
    NR_REPORTED,
    RECORD_HINT_ARRAYS,
    RECORD_HINT_MAP,
    RECORDING,
    REPORTING_ORDER,
    REQUEST,
    REQUEST_ACTIVE,
    REQUEST_IDLE,
    REQUEST_REQUESTED,
    VCPU_WORDS,
    WAKE,
    WAKE_BLOCKS,
    ZONE_LOCK,
    vcpu_base,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel
from pagetide.units import ORDERS

_VCPU_0 = vcpu_base(0)


@kernel
def notify_free(words: Any, vcpu: int, pfn: int, order: int) -> None:
    """Tell the worker of an unreported free block (`page_reporting_notify_free`); the caller holds the zone lock."""
    if order < words[REPORTING_ORDER]:
        return
    if words[RECORDING] >= RECORD_HINT_MAP:
        record_hint(words, vcpu, pfn, order)
    if atomic_load(words, REQUEST) == REQUEST_REQUESTED:
        return
    if words[WAKE_BLOCKS] > 1 and _waiting_blocks(words, vcpu) < words[WAKE_BLOCKS]:
        return
    if atomic_exchange(words, REQUEST, REQUEST_REQUESTED) == REQUEST_IDLE and words[WAKE_BLOCKS] > 0:
        atomic_store(words, WAKE, 1)


@kernel
def record_hint(words: Any, vcpu: int, pfn: int, order: int) -> None:
    """Record that there is a free block here, if hints are wanted; the caller holds the zone lock."""
    if words[RECORDING] == RECORD_HINT_MAP:
        if map_set(words, pfn >> words[REPORTING_ORDER]):
            words[HINTS] += 1
    elif words[RECORDING] == RECORD_HINT_ARRAYS:
        base = _VCPU_0 + vcpu * VCPU_WORDS
        count = words[base + HINT_COUNT]
        if count < words[HINTS_MAX]:
            words[base + HINT_BLOCKS + count] = pfn << 4 | order
            words[base + HINT_COUNT] = count + 1
            words[HINTS] += 1
        else:
            words[DROPPED_HINTS] += 1
            words[DROPPED_PAGES] += 1 << order


@kernel
def _waiting_blocks(words: Any, vcpu: int) -> int:
    """How much there is for the worker to do, in the terms of what is recorded."""
    if words[RECORDING] == RECORD_HINT_MAP:
        return words[HINTS]  # type: ignore[no-any-return]
    if words[RECORDING] == RECORD_HINT_ARRAYS:
        return words[_VCPU_0 + vcpu * VCPU_WORDS + HINT_COUNT]  # type: ignore[no-any-return]
    return unreported_blocks(words)


@kernel
def configure(words: Any, indices: Any, values: Any) -> None:
    """Set words of the zone under its lock, so that no vCPU sees some of them changed and others not."""
    lock(words, ZONE_LOCK)
    for index in range(indices.shape[0]):
        words[indices[index]] = values[index]
    unlock(words, ZONE_LOCK)


@kernel
def unreported_blocks(words: Any) -> int:
    """Free blocks of at least the reporting order that are not marked Reported."""
    blocks = 0
    for order in range(words[REPORTING_ORDER], ORDERS):
        blocks += words[NR_FREE + order] - words[NR_REPORTED + order]
    return blocks


@kernel
def unreported_pages(words: Any) -> int:
    """Pages in those blocks."""
    pages = 0
    for order in range(words[REPORTING_ORDER], ORDERS):
        pages += (words[NR_FREE + order] - words[NR_REPORTED + order]) << order
    return pages


@kernel
def take_wake(words: Any) -> bool:
    """Whether the caller is the one to wake the worker."""
    return atomic_exchange(words, WAKE, 0) != 0


@kernel
def request(words: Any) -> None:
    """Ask for a pass from the worker's own side."""
    atomic_store(words, REQUEST, REQUEST_REQUESTED)


@kernel
def is_requested(words: Any) -> bool:
    """Whether something asked for a pass that has not begun."""
    return atomic_load(words, REQUEST) == REQUEST_REQUESTED


@kernel
def begin_pass(words: Any) -> None:
    """A pass begins: requests from now on ask for another."""
    atomic_store(words, REQUEST, REQUEST_ACTIVE)


@kernel
def end_pass(words: Any) -> bool:
    """A pass ended; whether another was requested meanwhile."""
    return atomic_compare_exchange(words, REQUEST, REQUEST_ACTIVE, REQUEST_IDLE) == REQUEST_REQUESTED
