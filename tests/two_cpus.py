"""Two CPUs at work on the same words: the loops of the atomics proof, run by threads and by processes."""

import mmap
import os
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pagetide.atomics import (
    atomic_add,
    atomic_compare_exchange,
    atomic_load,
    atomic_store,
    fence,
    monotonic_ns,
    pause,
    sched_yield,
)
from pagetide.jit import JIT_DISABLED, kernel

ROUNDS = 5_000 if JIT_DISABLED else 1_000_000
"""How often each CPU increments the word."""

ADDED, EXCHANGED, TORN, TRIES, ARRIVED = 0, 8, 16, 17, 24
WORDS = 32
"""Each count is on a cache line of its own; the torn loop's tries are beside its count."""

_TORN_TRIES_MAX = 500
_MEET_MAX_NS = 30_000_000_000
_ATTEMPTS_MAX = 1_000_000


@kernel
def meet(words: npt.NDArray[np.int64], arrivals: int) -> int:
    """Arrive, and wait until so many have; -1 if the other does not come."""
    atomic_add(words, ARRIVED, 1)
    deadline_ns = monotonic_ns() + _MEET_MAX_NS
    while atomic_load(words, ARRIVED) < arrivals:
        if monotonic_ns() > deadline_ns:
            return -1
        sched_yield()
    return 0


@kernel
def add_loop(words: npt.NDArray[np.int64], at: int, rounds: int) -> int:
    """Increment by atomic addition."""
    for _ in range(rounds):
        atomic_add(words, at, 1)
    return 0


@kernel
def exchange_loop(words: npt.NDArray[np.int64], at: int, rounds: int) -> int:
    """Increment by compare-and-exchange, again until it succeeds; -1 if it never does."""
    for _ in range(rounds):
        old = atomic_load(words, at)
        for _attempt in range(_ATTEMPTS_MAX):
            seen = atomic_compare_exchange(words, at, old, old + 1)
            if seen == old:
                break
            old = seen
        else:
            return -1
    return 0


@kernel
def torn_loop(words: npt.NDArray[np.int64], at: int, rounds: int) -> int:
    """Increment by a load and a store: whatever the other does in between is lost."""
    for _ in range(rounds):
        atomic_store(words, at, atomic_load(words, at) + 1)
    return 0


def increment(words: npt.NDArray[np.int64], cpu: int) -> None:
    """Run one side of it on this CPU; the torn loop again and again until it has lost something.

    On a busy machine the two may run in turns, and then it loses nothing.
    """
    os.sched_setaffinity(0, {cpu})
    arrivals = 0

    def arrive() -> None:
        nonlocal arrivals
        arrivals += 2
        assert meet(words, arrivals) == 0, "the other side did not come"

    def both(loop: Callable[[npt.NDArray[np.int64], int, int], int], at: int) -> None:
        arrive()
        assert loop(words, at, ROUNDS) == 0
        arrive()

    both(add_loop, ADDED)
    both(exchange_loop, EXCHANGED)
    for tries in range(1, _TORN_TRIES_MAX + 1):
        words[TRIES] = tries
        both(torn_loop, TORN)
        if words[TORN] < 2 * ROUNDS * tries:  # both have stopped, and both see the same
            break


@kernel
def store_then_load(
    mine: npt.NDArray[np.int64],
    other: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
    progress: npt.NDArray[np.int64],
    side: int,
    fenced: int,
) -> int:
    """Store to one place, then load from where the other side stores, step by step with it; -1 if it does not come.

    Args:
        mine: zeros; this side stores 1 into one element after the other.
        other: the same of the other side.
        seen: what this side loaded from `other` in each step.
        progress: at 0 and 8, how far the sides are.
        side: 0 or 1.
        fenced: not 0 for a fence between the store and the load.
    """
    for step in range(len(mine)):
        atomic_store(progress, side * 8, step + 1)
        for _ in range(1_000_000_000):
            if atomic_load(progress, 8 - side * 8) > step:
                break
            pause()
        else:
            return -1
        mine[step] = 1
        if fenced:
            fence()
        seen[step] = other[step]
    return 0


def main() -> None:
    """Run as `python -m tests.two_cpus FD CPU`: one side, on words in a memory file."""
    fd, cpu = map(int, sys.argv[1:])
    increment(np.frombuffer(mmap.mmap(fd, WORDS * 8), np.int64), cpu)


if __name__ == "__main__":
    main()
