"""Two CPUs at work on the same words: the loops of the atomics proof, run by threads and by processes."""

import mmap
import os
import sys

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

ADD, EXCHANGE, TORN = 0, 1, 2
EXPERIMENTS = (ADD, EXCHANGE, *[TORN] * 8)
"""In this order. The torn loop is repeated: a noisy machine may let the two run one after the other."""

SLOT_WORDS = 16
COUNT, ARRIVED = 0, 8
WORDS = SLOT_WORDS * len(EXPERIMENTS)
"""Each experiment has a slot of words: the count, and on a cache line of its own who has arrived."""

_MEET_MAX_NS = 30_000_000_000
_ATTEMPTS_MAX = 1_000_000


@kernel
def meet(words: npt.NDArray[np.int64], at: int) -> int:
    """Wait until both have arrived; -1 if the other does not come."""
    atomic_add(words, at, 1)
    deadline_ns = monotonic_ns() + _MEET_MAX_NS
    while atomic_load(words, at) < 2:
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
    """Run one side of all experiments on this CPU."""
    os.sched_setaffinity(0, {cpu})
    for slot, experiment in enumerate(EXPERIMENTS):
        at = slot * SLOT_WORDS
        assert meet(words, at + ARRIVED) == 0, "the other side did not come"
        loop = (add_loop, exchange_loop, torn_loop)[experiment]
        assert loop(words, at + COUNT, ROUNDS) == 0


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
