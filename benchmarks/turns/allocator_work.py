"""What is done with the guest's allocator in a turn, as a script: it imports nothing that an earlier build has not.

It reads `pair|random ORDERS VCPUS` line by line, and writes how many nanoseconds an operation took. `pair` allocates
and frees one block; `random` frees a random one of the held blocks, or allocates one in its place: of one order, or of
orders from one to another, half of them of the first, a quarter of the next and so on. All is on 2^18 pages, of which
`random` holds a third, or of order 9 half. On one vCPU processor time counts, on two the time until both are done.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.zone import Zone
from pagetide.jit import kernel

_NR_PAGES = 1 << 18
_OPERATIONS = 1_000_000
_HELD = {"0": 1 << 16, "1-8": 12_000, "9": 512}
"""Places for blocks, by orders: half of them are taken, on average."""


@kernel
def _pairs(words: Any, pages: Any, vcpu: int, order: int, rounds: int) -> int:
    failed = 0
    for _ in range(rounds):
        pfn = allocate(words, pages, vcpu, order)
        failed += pfn < 0
        free(words, pages, vcpu, pfn, order)
    return failed


@kernel
def random_blocks(words: Any, pages: Any, vcpu: int, held: Any, places: Any, orders: Any) -> int:
    """At each of these places free the block held there, or allocate one of its order; how often that failed."""
    failed = 0
    for index in range(places.shape[0]):
        block = held[places[index]]
        if block >= 0:
            free(words, pages, vcpu, block >> 4, block & 15)
            held[places[index]] = -1
        else:
            order = int(orders[index])
            pfn = allocate(words, pages, vcpu, order)
            failed += pfn < 0
            held[places[index]] = pfn << 4 | order if pfn >= 0 else -1
    return failed


def _make(kind: str, orders: str, vcpus: int) -> Callable[[int], int]:
    """What each vCPU does in a turn; it answers how many of its allocations failed."""
    zone = Zone(_NR_PAGES, vcpus=vcpus)
    if kind == "pair":
        return lambda vcpu: int(_pairs(zone.words, zone.pages, vcpu, int(orders), _OPERATIONS))
    rng, places = np.random.default_rng(7), _HELD[orders] // vcpus
    held = [np.full(places, -1, np.int64) for _ in range(vcpus)]
    chosen = [rng.integers(0, places, _OPERATIONS).astype(np.int32) for _ in range(vcpus)]
    low, _, high = orders.partition("-")
    each = [(rng.geometric(0.5, _OPERATIONS) + int(low) - 1).clip(None, int(high or low)) for _ in range(vcpus)]
    made = [one.astype(np.uint8) if high else np.full(_OPERATIONS, int(low), np.uint8) for one in each]
    return lambda vcpu: int(random_blocks(zone.words, zone.pages, vcpu, held[vcpu], chosen[vcpu], made[vcpu]))


def _turn_ns(work: Callable[[int], int], vcpus: int) -> float:
    """Nanoseconds an operation of each vCPU, each on a processor of its own; all begin at once."""
    failed: list[int] = []
    spent_ns: list[int] = []
    clock_ns = time.thread_time_ns if vcpus == 1 else time.perf_counter_ns
    processors = sorted(os.sched_getaffinity(0))
    begin = threading.Barrier(vcpus)

    def run(vcpu: int) -> None:
        os.sched_setaffinity(0, {processors[vcpu % len(processors)]})
        begin.wait()
        start_ns = clock_ns()
        failed.append(work(vcpu))
        spent_ns.append(clock_ns() - start_ns)

    threads = [threading.Thread(target=run, args=(vcpu,)) for vcpu in range(vcpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [0] * vcpus, "the benchmark ran out of memory"
    return max(spent_ns) / _OPERATIONS


def main() -> None:
    """Do what is asked, line by line, until there is no more."""
    works: dict[str, Callable[[int], int]] = {}
    for line in sys.stdin:
        kind, orders, vcpus = line.split()
        if line not in works:
            works[line] = _make(kind, orders, int(vcpus))
        print(_turn_ns(works[line], int(vcpus)), flush=True)


if __name__ == "__main__":
    main()
