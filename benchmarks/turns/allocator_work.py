"""What is done with the guest's allocator in a turn, as a script: it imports nothing that an earlier build has not.

It reads `pair|random ORDERS VCPUS [marks]` line by line, and writes how many nanoseconds an operation took. `pair`
allocates and frees one block; `random` frees a random one of the held blocks, or allocates one in its place: of one
order, or of orders from one to another, half of them of the first, a quarter of the next and so on. All is on 2^18
pages, of which `random` holds a third, or of order 9 half. With `marks` blocks are kept apart by them (`pool` started).

A turn has short rounds. Each begins once all vCPUs are there, every one on a processor of its own, and lasts until the
last is done; the median counts. Rounds in which a vCPU was not on its processor throughout are left out: on two vCPUs
the other one then met nobody, and the time is the scheduler's.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pagetide.atomics import atomic_add, atomic_load, atomic_store, load_i64, monotonic_ns, pause, sched_yield
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.zone import Zone
from pagetide.jit import external, int32, int64, kernel

_NR_PAGES = 1 << 18
_ROUNDS = 256
_OPERATIONS = 1 << 12
"""Of each vCPU in a round."""

_OFF_MAX_NS = 5_000
"""For how long a vCPU may have been off its processor in a round that counts."""

_LOOKS = 2000
"""For the other vCPUs, before the processor is given away, which one of them may need."""

_HELD = {"0": 1 << 16, "1-8": 12_000, "9": 512}
"""Places for blocks, by orders: half of them are taken, on average."""

# Where all vCPUs' arrivals are counted, and when the last one came; each on a cache line of its own.
_ARRIVED = 0
_BEGUN_NS = 16
_GATE_WORDS = 32

# What is kept of a round: how long it took a vCPU, and for how long that was off its processor.
_SPENT_NS = 0
_OFF_NS = 1
_CLOCK = 2
_ROUND_WORDS = 4

_thread_clock = external("clock_gettime", int32, int32, int64)


@kernel
def _on_processor_ns(clock: int) -> int:
    """For how long this thread has run; `clock` is the address of a struct timespec."""
    _thread_clock(time.CLOCK_THREAD_CPUTIME_ID, clock)
    return load_i64(clock) * 1_000_000_000 + load_i64(clock + 8)


@kernel
def _begin(gate: Any, vcpus: int, round_: Any) -> None:
    """Wait until all vCPUs are there."""
    arrived = atomic_add(gate, _ARRIVED, 1) + 1
    if arrived % vcpus == 0:
        atomic_store(gate, _BEGUN_NS, monotonic_ns())
        atomic_add(gate, _ARRIVED + 1, 1)
    turn = (arrived + vcpus - 1) // vcpus
    looks = 0
    while atomic_load(gate, _ARRIVED + 1) < turn:
        looks += 1
        if looks < _LOOKS:
            pause()
        else:
            sched_yield()
    round_[_OFF_NS] = _on_processor_ns(round_.ctypes.data + 8 * _CLOCK)


@kernel
def _end(gate: Any, round_: Any) -> None:
    """This vCPU is done."""
    round_[_SPENT_NS] = monotonic_ns() - atomic_load(gate, _BEGUN_NS)
    round_[_OFF_NS] += round_[_SPENT_NS] - _on_processor_ns(round_.ctypes.data + 8 * _CLOCK)


@kernel
def _pairs(words: Any, pages: Any, vcpu: int, order: int, gate: Any, vcpus: int, rounds: Any) -> int:
    failed = 0
    for number in range(rounds.shape[0]):
        _begin(gate, vcpus, rounds[number])
        for _ in range(_OPERATIONS):
            pfn = allocate(words, pages, vcpu, order)
            failed += pfn < 0
            free(words, pages, vcpu, pfn, order)
        _end(gate, rounds[number])
    return failed


@kernel
def _random_blocks(
    words: Any, pages: Any, vcpu: int, held: Any, places: Any, orders: Any, gate: Any, vcpus: int, rounds: Any
) -> int:
    failed = 0
    for number in range(rounds.shape[0]):
        _begin(gate, vcpus, rounds[number])
        for index in range(number * _OPERATIONS, (number + 1) * _OPERATIONS):
            block = held[places[index]]
            if block >= 0:
                free(words, pages, vcpu, block >> 4, block & 15)
                held[places[index]] = -1
            else:
                order = int(orders[index])
                pfn = allocate(words, pages, vcpu, order)
                failed += pfn < 0
                held[places[index]] = pfn << 4 | order if pfn >= 0 else -1
        _end(gate, rounds[number])
    return failed


Work = Callable[..., int]
"""What a vCPU does in a turn, given its number, the gate, how many vCPUs there are and what is kept of its rounds."""


def _keep_marks(zone: Zone) -> None:
    from pagetide.guest.reporting.designs.pool import Pool  # noqa: PLC0415 - an earlier build has none
    from pagetide.guest.reporting.settings import ReportingSettings  # noqa: PLC0415 - as Pool

    Pool(zone, ReportingSettings(order=0)).start(0.0)


def _make(kind: str, orders: str, vcpus: int, marks: bool) -> Work:
    zone = Zone(_NR_PAGES, vcpus=vcpus)
    if marks:
        _keep_marks(zone)
    if kind == "pair":
        return lambda vcpu, *rounds: int(_pairs(zone.words, zone.pages, vcpu, int(orders), *rounds))
    rng, places, total = np.random.default_rng(7), _HELD[orders] // vcpus, _ROUNDS * _OPERATIONS
    held = [np.full(places, -1, np.int64) for _ in range(vcpus)]
    chosen = [rng.integers(0, places, total).astype(np.int32) for _ in range(vcpus)]
    low, _, high = orders.partition("-")
    each = [(rng.geometric(0.5, total) + int(low) - 1).clip(None, int(high or low)) for _ in range(vcpus)]
    made = [one.astype(np.uint8) if high else np.full(total, int(low), np.uint8) for one in each]
    return lambda vcpu, *rounds: int(
        _random_blocks(zone.words, zone.pages, vcpu, held[vcpu], chosen[vcpu], made[vcpu], *rounds)
    )


def _turn_ns(work: Work, vcpus: int) -> float:
    """Nanoseconds an operation of each vCPU; not a number if no round counts."""
    failed: list[int] = []
    processors = sorted(os.sched_getaffinity(0))
    gate, rounds = np.zeros(_GATE_WORDS, np.int64), np.zeros((vcpus, _ROUNDS, _ROUND_WORDS), np.int64)

    def run(vcpu: int) -> None:
        os.sched_setaffinity(0, {processors[vcpu % len(processors)]})
        failed.append(work(vcpu, gate, vcpus, rounds[vcpu]))

    threads = [threading.Thread(target=run, args=(vcpu,)) for vcpu in range(vcpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [0] * vcpus, "the benchmark ran out of memory"
    spent_ns, off_ns = rounds[:, :, _SPENT_NS].max(axis=0), rounds[:, :, _OFF_NS].max(axis=0)
    counted = spent_ns[off_ns <= _OFF_MAX_NS]
    return float(np.median(counted)) / _OPERATIONS if counted.size else math.nan


def main() -> None:
    """Do what is asked, line by line, until there is no more."""
    works: dict[str, Work] = {}
    for line in sys.stdin:
        kind, orders, vcpus, *marks = line.split()
        if line not in works:
            works[line] = _make(kind, orders, int(vcpus), bool(marks))
        print(_turn_ns(works[line], int(vcpus)), flush=True)


if __name__ == "__main__":
    main()
