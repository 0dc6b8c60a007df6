"""Measures on this machine what the simulated one's clock is made of, with real memory and real processes.

Each cost is the median of many short stretches, in CPU time of the thread that runs them, so that what else the machine
does disturbs it little: on a busy one, waiting for a processor would double what a discard seems to cost. Touching is
measured with the vCPUs' own kernel, discarding with the host's, of what another process has touched (discarding.py);
reports go through a host process of their own (report.py).
"""

import datetime as dt
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from pagetide.guest.allocator.buddy import return_block
from pagetide.guest.allocator.isolate import LEFT, STEPS_WORDS, walk_free_list
from pagetide.guest.allocator.operation import ALLOCATE, FREE, operations
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import WALKED_BLOCKS
from pagetide.guest.reporting.designs.scan import Scan
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.vcpu import WORKER_WANTED, run_operations
from pagetide.host.memory.punch import punch_hole
from pagetide.jit import kernel
from pagetide.machine.calibration.discarding import PIECE_SIZES_BYTES, measure_discarding
from pagetide.machine.calibration.report import measure_reports
from pagetide.machine.calibration.surveying import measure_surveying
from pagetide.machine.calibration.taking import measure_taking
from pagetide.machine.costs import BackingCosts, Cost, Costs, Piece, TakingCosts
from pagetide.machine.versions import cpu_name
from pagetide.memory.guest_ram import Backing, GuestRam, GuestRamError
from pagetide.units import COSTLY_ORDER, HUGE_PAGE_BYTES, PAGE_SIZE_BYTES

RAM_BYTES = 192 << 20
"""The memory that is used for measuring."""

_ZONE_PAGES = 1 << 16
_ORDER = 9
_BLOCKS = 32
_STRETCHES = 40
_ROUNDS = 6
_SURVEYS = 4


class _Memory(NamedTuple):
    """Nanoseconds that touching memory took: each a list with an entry a stretch."""

    fault: list[float]
    check: list[float]
    stamp: list[float]
    fault_shared: list[float]


def calibrate(tell: Callable[[str], None] = lambda _: None, *, effort: int = 1) -> Costs:
    """Measure everything; some 15 s with an effort of 1, in proportion with more.

    Args:
        tell: gets what is being measured, for people.
        effort: how many times over.

    Raises:
        GuestRamError: there is no memory to measure with.
        OSError: the host's process could not be had.
    """
    assert effort >= 1
    tell("the allocator")
    order0, moved_page, block, walk = _measure_allocator(effort)
    backings: dict[Backing, BackingCosts] = {}
    touched: dict[Backing, _Memory] = {}
    wanted: tuple[Backing, ...] = ("memfd", "hugetmpfs")
    for backing in wanted:
        tell(f"touching and discarding memory ({backing})")
        try:
            with GuestRam.create(RAM_BYTES, backing) as ram:
                touched[backing], backings[backing] = _costs_of_backing(ram, effort, huge=backing == "hugetmpfs")
        except GuestRamError:
            if backing == "memfd":
                raise
    tell("reports through a host process")
    report = measure_reports(100 * effort, backings["memfd"].punch.ns)
    tell("taking frames")
    taking = measure_taking(_STRETCHES * effort)
    tell("passes of pool")
    survey = measure_surveying(_SURVEYS * effort, float(np.median(walk)))
    return Costs(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        kernel=platform.release(),
        cpu=cpu_name(),
        cpus=len(os.sched_getaffinity(0)),
        order0=cost_of(order0),
        moved_page=cost_of(moved_page),
        block=cost_of(block),
        stamp=cost_of(touched["memfd"].stamp),
        check=cost_of(touched["memfd"].check),
        report=cost_of(report.report),
        report_block=cost_of(report.report_block),
        walk=cost_of(walk),
        element=cost_of(report.element),
        element_block=cost_of(report.element_block),
        wake=cost_of(report.wake),
        backings=backings,
        survey=cost_of(survey),
        taking=TakingCosts(batch=cost_of(taking.batch), frame=cost_of(taking.frame), look=cost_of(taking.look)),
    )


def cost_of(measured_ns: list[float]) -> Cost:
    """Median and spread; what came out negative, as the difference of two, is nothing."""
    low_ns, ns, high_ns = np.percentile(np.maximum(measured_ns, 0.0), (10, 50, 90)).round(3).tolist()
    return Cost(ns=ns, low_ns=low_ns, high_ns=high_ns)


def _timed_ns(function: Callable[..., Any], *arguments: Any) -> int:
    start_ns = time.thread_time_ns()
    function(*arguments)
    return time.thread_time_ns() - start_ns


@kernel
def _pairs(words: Any, pages: Any, count: int) -> None:
    for _ in range(count):
        free(words, pages, 0, allocate(words, pages, 0, 0), 0)


@kernel
def _fill_and_free(words: Any, pages: Any, order: int, held: Any) -> None:
    for index in range(held.shape[0]):
        held[index] = allocate(words, pages, 0, order)
    for index in range(held.shape[0]):
        free(words, pages, 0, held[index], order)


def _measure_allocator(effort: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """Order 0 from its list, the rest of order 0, blocks without a list, and a block that a walk passes over."""
    zone = Zone(_ZONE_PAGES)
    pairs, held, blocks = 10_000, np.zeros(_ZONE_PAGES // 2, np.int64), np.zeros(_ZONE_PAGES // 32, np.int64)
    _pairs(zone.words, zone.pages, pairs)
    order0, moved, block = [], [], []
    for _ in range(_STRETCHES * effort):
        order0.append(_timed_ns(_pairs, zone.words, zone.pages, pairs) / pairs / 2)
        every_ns = _timed_ns(_fill_and_free, zone.words, zone.pages, 0, held) / len(held) / 2
        moved.append(every_ns - order0[-1])
        block.append(_timed_ns(_fill_and_free, zone.words, zone.pages, COSTLY_ORDER + 1, blocks) / len(blocks) / 2)
    return order0[1:], moved[1:], block[1:], _measure_walk(effort)


def _measure_walk(effort: int) -> list[float]:
    """Walk over reported pages that lie anywhere, with an unreported one at the end so that the walk has a purpose."""
    zone = Zone(_ZONE_PAGES, pcp_batch=1, pcp_high=(1, 1))
    held = [zone.allocate(0) for _ in range(_ZONE_PAGES // 2)]
    apart = [pfn for pfn in held if pfn is not None and pfn % 2 == 0]
    for index in np.random.default_rng(1).permutation(len(apart) - 1):
        zone.free(apart[index], 0)
    design = Scan(zone, ReportingSettings(order=0, delay_s=0.0, capacity=512))
    design.start(0.0)
    while (batch := design.next_batch(0.0)) is not None:
        design.done(batch, True, 0.0)
    return_block(zone.words, zone.pages, apart[-1], 0, True, False)
    steps, nowhere = np.zeros(STEPS_WORDS, np.int64), np.zeros(1, np.int64)
    costs_ns = []
    for _ in range(1 + _STRETCHES * effort):
        walked = int(zone.words[WALKED_BLOCKS])
        steps[LEFT] = _ZONE_PAGES
        spent_ns = _timed_ns(walk_free_list, zone.words, zone.pages, 0, nowhere, 0, False, False, steps)
        costs_ns.append(spent_ns / (int(zone.words[WALKED_BLOCKS]) - walked))
    return costs_ns[1:]


class _Toucher:
    """Allocates and frees 2 MiB blocks with the vCPUs' own kernel, a vCPU a thread, each its half of the memory."""

    def __init__(self, ram: GuestRam) -> None:
        self._ram, self._zone = ram, Zone(ram.size_bytes // PAGE_SIZE_BYTES, vcpus=2)
        slots = np.arange(_BLOCKS, dtype=np.int32)
        self._made = {kind: operations(kind, np.full(_BLOCKS, _ORDER, np.uint8), slots) for kind in (ALLOCATE, FREE)}
        self._held = [np.full(_BLOCKS, -1, np.int64) for _ in range(2)]

    def each_ns(self, vcpu: int, kind: int) -> list[float]:
        """Run all operations of a kind; nanoseconds a page, an entry a block."""
        cursor, zone = np.zeros(1, np.int64), self._zone
        found = []
        for end in range(1, _BLOCKS + 1):
            start_ns = time.thread_time_ns()
            outcome = run_operations(
                zone.words, zone.pages, self._ram.address, vcpu, self._made[kind], self._held[vcpu], cursor, end
            )
            found.append((time.thread_time_ns() - start_ns) / (1 << _ORDER))
            assert outcome in (0, WORKER_WANTED)
        return found

    def both_ns(self, threads: ThreadPoolExecutor, kind: int) -> list[float]:
        """The same on two vCPUs at once."""
        return [each_ns for found in threads.map(self.each_ns, range(2), (kind, kind)) for each_ns in found]

    def discard(self) -> None:
        """Discard everything."""
        assert punch_hole(self._ram.fd, 0, self._ram.size_bytes) == 0


def _measure_touching(ram: GuestRam, effort: int) -> _Memory:
    toucher = _Toucher(ram)
    found = _Memory([], [], [], [])
    with ThreadPoolExecutor(2) as threads:
        toucher.both_ns(threads, ALLOCATE)  # warms up
        toucher.both_ns(threads, FREE)
        for _ in range(_ROUNDS * effort):
            toucher.discard()
            found.fault.extend(toucher.each_ns(0, ALLOCATE))
            found.check.extend(toucher.each_ns(0, FREE))
            found.stamp.extend(toucher.each_ns(0, ALLOCATE))
            toucher.each_ns(0, FREE)
            toucher.discard()
            found.fault_shared.extend(toucher.both_ns(threads, ALLOCATE))
            toucher.both_ns(threads, FREE)
    return found


def _costs_of_backing(ram: GuestRam, effort: int, *, huge: bool) -> tuple[_Memory, BackingCosts]:
    touched = _measure_touching(ram, effort)
    found = measure_discarding(ram, _ROUNDS * effort, huge=huge)
    pieces = zip(PIECE_SIZES_BYTES, found.pieces_ns, strict=True)
    return touched, BackingCosts(
        fault=_fault(touched.fault, touched.stamp, huge=huge),
        fault_shared=_fault(touched.fault_shared, touched.stamp, huge=huge),
        punch=cost_of(found.holes_ns),
        pieces=tuple(Piece(size_bytes=size_bytes, cost=cost_of(costs_ns)) for size_bytes, costs_ns in pieces),
        split=cost_of(found.splits_ns) if huge else None,
    )


def _fault(touched_ns: list[float], stamp_ns: list[float], *, huge: bool) -> Cost:
    """What a first touch costs besides the stamp: of a page, or of a huge one, from the means over its pages."""
    pages = HUGE_PAGE_BYTES // PAGE_SIZE_BYTES if huge else 1
    stamp = float(np.median(stamp_ns))
    return cost_of([(each_ns - stamp) * pages for each_ns in touched_ns])
