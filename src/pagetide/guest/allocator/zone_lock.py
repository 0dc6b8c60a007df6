"""The zone's spinlock: test-and-test-and-set, giving the processor away when its holder may be off it.

Linux's spinlock disables preemption, so its holder always runs. A thread cannot: with more runnable threads than
processors the holder may be waiting for ours, so after a short spin every further try yields. Only the waiting path
is timed.
"""

from typing import Any

from pagetide.atomics import (
    abort,
    atomic_add,
    atomic_compare_exchange,
    atomic_load,
    atomic_store,
    monotonic_ns,
    pause,
    sched_yield,
)
from pagetide.guest.allocator.zone_layout import LOCK_CONTENDED, LOCK_WAIT_NS, LOCK_WAIT_NS_MAX
from pagetide.jit import inline_kernel, kernel

_SPINS = 200
_YIELDS_MAX = 1 << 26


@inline_kernel
def lock(words: Any, index: int) -> None:
    """Take the lock in this word of the zone, with acquire ordering."""
    if atomic_compare_exchange(words, index, 0, 1) != 0:
        _wait(words, index)


@inline_kernel
def unlock(words: Any, index: int) -> None:
    """Release the lock in this word, with release ordering."""
    atomic_store(words, index, 0)


@kernel
def _wait(words: Any, index: int) -> None:
    start_ns = monotonic_ns()
    spins = 0
    while True:
        if atomic_load(words, index) == 0 and atomic_compare_exchange(words, index, 0, 1) == 0:
            break
        spins += 1
        if spins < _SPINS:
            pause()
        else:
            sched_yield()
        if spins > _YIELDS_MAX:
            abort()
    waited_ns = monotonic_ns() - start_ns
    atomic_add(words, LOCK_CONTENDED, 1)
    atomic_add(words, LOCK_WAIT_NS, waited_ns)
    longest_ns = atomic_load(words, LOCK_WAIT_NS_MAX)
    while waited_ns > longest_ns:
        longest_ns = atomic_compare_exchange(words, LOCK_WAIT_NS_MAX, longest_ns, waited_ns)
