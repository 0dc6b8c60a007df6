"""What the guest's allocator costs: nanoseconds an operation inside a kernel, locks included, on 2^18 pages.

Two kinds of work. `pair` allocates and frees one page, which hits the per-CPU list. `random` frees a random one of
the held blocks or allocates a new one in its place, of random order, so that blocks split and merge; a third of
memory is held. Each is run on one vCPU and on two at once, and against itself with a reporting worker at work
(`scan`, every 50 ms, with a host that takes everything at once), in turn, so that the ratio holds on a noisy machine.
Of that ratio nothing is asked where the vCPUs and the worker have not a processor each. What two vCPUs cost each other
is asked in `turns`.
"""

import functools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Row
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import vcpu_base
from pagetide.guest.reporting.designs.scan import Scan
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.jit import kernel

NR_PAGES = 1 << 18
"""Of the zones that are measured."""

_OPERATIONS = 1_000_000
_REPEATS = 5
_PAIRS = 9
_HELD = 12_000

Work = Callable[[Zone, int], None]
"""What a vCPU of a zone does."""


@kernel
def _pairs(words: npt.NDArray[np.int64], pages: npt.NDArray[np.uint32], vcpu: int, rounds: int) -> int:
    failed = 0
    for _ in range(rounds):
        pfn = allocate(words, pages, vcpu, 0)
        failed += pfn < 0
        free(words, pages, vcpu, pfn, 0)
    return failed


@kernel
def _random_blocks(
    words: npt.NDArray[np.int64],
    pages: npt.NDArray[np.uint32],
    vcpu: int,
    held: npt.NDArray[np.int64],
    places: npt.NDArray[np.int32],
    orders: npt.NDArray[np.uint8],
) -> int:
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


class RandomWork:
    """Each vCPU's own blocks, places and orders; half of the blocks are of order 1, a quarter of order 2, and so on."""

    def __init__(self, vcpus: int) -> None:
        rng = np.random.default_rng(7)
        held = _HELD // vcpus
        self._held = [np.full(held, -1, np.int64) for _ in range(vcpus)]
        self._places = [rng.integers(0, held, _OPERATIONS).astype(np.int32) for _ in range(vcpus)]
        self._orders = [rng.geometric(0.5, _OPERATIONS).clip(1, 8).astype(np.uint8) for _ in range(vcpus)]

    def __call__(self, zone: Zone, vcpu: int) -> None:
        """Run this vCPU's operations once."""
        failed = _random_blocks(zone.words, zone.pages, vcpu, self._held[vcpu], self._places[vcpu], self._orders[vcpu])
        assert failed == 0, "the benchmark ran out of memory"


def _pair_work(zone: Zone, vcpu: int) -> None:
    """Allocate and free one page, over and over."""
    assert _pairs(zone.words, zone.pages, vcpu, _OPERATIONS) == 0


def seconds(zone: Zone, vcpus: int, work: Work) -> float:
    """How long it takes until every vCPU has done its work once."""
    threads = [threading.Thread(target=work, args=(zone, vcpu)) for vcpu in range(1, vcpus)]
    start_s = time.perf_counter()
    for thread in threads:
        thread.start()
    work(zone, 0)
    for thread in threads:
        thread.join()
    return time.perf_counter() - start_s


@contextmanager
def _reporting(zone: Zone) -> Iterator[None]:
    """A worker that drains every 50 ms, over a host that has nothing to do."""
    design = Scan(zone, ReportingSettings(order=9, delay_s=0.05, capacity=32))
    stop = threading.Event()

    def report() -> None:
        design.start(time.monotonic())
        while not stop.wait(0.01):
            if take_wake(zone.words):
                design.woken(time.monotonic())
            while (batch := design.next_batch(time.monotonic())) is not None:
                design.done(batch, True, time.monotonic())

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _best_ns(vcpus: int, work: Work) -> float:
    zone = Zone(NR_PAGES, vcpus=vcpus)
    seconds(zone, vcpus, work)
    return min(seconds(zone, vcpus, work) for _ in range(_REPEATS)) / _OPERATIONS * 1e9


def _reporting_ratio(vcpus: int, make_work: Callable[[], Work]) -> float:
    """Median over pairs of runs, one with the worker and one without, each on a zone of its own."""
    ratios = []
    quiet, reported = Zone(NR_PAGES, vcpus=vcpus), Zone(NR_PAGES, vcpus=vcpus)
    quiet_work, reported_work = make_work(), make_work()
    with _reporting(reported):
        seconds(reported, vcpus, reported_work)
    seconds(quiet, vcpus, quiet_work)
    for _ in range(_PAIRS):
        without_s = seconds(quiet, vcpus, quiet_work)
        with _reporting(reported):
            with_s = seconds(reported, vcpus, reported_work)
        ratios.append(with_s / without_s)
    assert reported.words[vcpu_base(0)] == 0, "every lock is free again"
    return statistics.median(ratios)


def works(vcpus: int) -> dict[str, Callable[[], Work]]:
    """By name, what begins a work of so many vCPUs."""
    return {"pair": lambda: _pair_work, "random": functools.partial(RandomWork, vcpus)}


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    for vcpus in (1, 2):
        for name, make_work in works(vcpus).items():
            target = 60.0 if vcpus == 1 else None
            yield Row(f"allocator, {name}, {vcpus} vCPU", _best_ns(vcpus, make_work()), "ns", at_most=target)
            ratio = _reporting_ratio(vcpus, make_work)
            title = f"allocator, {name}, {vcpus} vCPU, reporting on / off"
            if vcpus < len(os.sched_getaffinity(0)):
                yield Row(title, ratio, "ratio", at_most=1.03)
            else:
                yield Row(title, ratio, "ratio", note="not asked: there is no processor for the worker")
