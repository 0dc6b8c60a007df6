"""What it costs to find the next unreported free block among many that are reported: `cursor` beside `scan`.

A zone with 2^n free pages that cannot merge, freed in random order, one in a hundred of them unreported. `find` is
nanoseconds of one step of the cursor from an unreported block to the next. `take` isolates 32 and puts them back, as
a batch does: for `scan` a walk over its list and past the reported blocks, for `cursor` a look into its map. What
grows in `take` with the zone is the cache misses of the blocks' own records, which both have.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.rows import Row
from pagetide.guest.allocator.by_position import take_candidates
from pagetide.guest.allocator.candidates import map_next
from pagetide.guest.allocator.isolate import FILLED, LEFT, PASSED_OVER, STEPS_WORDS, put_back, walk_free_list
from pagetide.guest.allocator.lists.free_list import mark_reported
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import NR_FREE, NR_PAGES, RECORD_UNREPORTED
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.jit import kernel

_SIZES = (10, 14, 18, 22)
_BATCH = 32
_ROUNDS = 50
_SHARE = 100
_GROWTH_MAX = 3.0


def run() -> Iterator[Row]:
    """Measure both at each size; one row a figure, as soon as there is one."""
    found_ns = []
    for size in _SIZES:
        zone = _zone(1 << size)
        found_ns.append(_find_ns(zone))
        yield Row(f"next block, find, cursor, 2^{size} free", found_ns[-1], "ns")
        yield Row(f"next block, take, cursor, 2^{size} free", _cursor_ns(zone), "ns")
        yield Row(f"next block, take, scan, 2^{size} free", _scan_ns(zone), "ns")
    name = f"next block, find, cursor, 2^{_SIZES[-1]} / 2^{_SIZES[0]} free"
    yield Row(name, found_ns[-1] / found_ns[0], "ratio", at_most=_GROWTH_MAX)


def _zone(free_blocks: int) -> Zone:
    """Every second page free, one in a hundred of them unreported."""
    rng = np.random.default_rng(1)
    zone = Zone(2 * free_blocks, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1))
    switch_on(zone, ReportingSettings(order=0), recording=RECORD_UNREPORTED)
    _fill_and_free(zone.words, zone.pages, 2 * rng.permutation(free_blocks))
    zone.drain_pcp(0)
    _report(zone.words, zone.pages, 2 * np.flatnonzero(rng.random(free_blocks) >= 1 / _SHARE))
    return zone


@kernel
def _fill_and_free(words: Any, pages: Any, pfns: Any) -> None:
    for _ in range(words[NR_PAGES]):
        allocate(words, pages, 0, 0)
    for pfn in pfns:
        free(words, pages, 0, pfn, 0)


@kernel
def _report(words: Any, pages: Any, pfns: Any) -> None:
    for pfn in pfns:
        mark_reported(words, pages, pfn, 0)


@kernel
def _go_round(words: Any, rounds: int) -> int:
    steps = 0
    for _ in range(rounds):
        position = map_next(words, 0)
        while position >= 0:
            steps += 1
            position = map_next(words, position + 1)
    return steps


def _find_ns(zone: Zone) -> float:
    """One step from an unreported block to the next, over whole rounds."""
    steps, each_ns = _go_round(zone.words, 1), []
    for _ in range(5):
        rounds = 1 + 100_000 // steps
        start_ns = time.perf_counter_ns()
        _go_round(zone.words, rounds)
        each_ns.append((time.perf_counter_ns() - start_ns) / (steps * rounds))
    return statistics.median(each_ns)


def _cursor_ns(zone: Zone) -> float:
    """One block taken by position."""
    batch, steps = np.zeros(_BATCH, np.int64), np.zeros(STEPS_WORDS, np.int64)
    position, each_ns = 0, []
    for _ in range(_ROUNDS):
        steps[FILLED], steps[LEFT] = 0, _BATCH
        start_ns = time.perf_counter_ns()
        position = max(0, int(take_candidates(zone.words, zone.pages, position, batch, steps)))
        took_ns = time.perf_counter_ns() - start_ns
        if steps[FILLED]:
            each_ns.append(took_ns / int(steps[FILLED]))
        put_back(zone.words, zone.pages, batch, int(steps[FILLED]), False)
    return statistics.median(each_ns[1:])


def _scan_ns(zone: Zone) -> float:
    """One block taken by walking the list on from where the walk before stopped."""
    batch, steps = np.zeros(_BATCH, np.int64), np.zeros(STEPS_WORDS, np.int64)
    each_ns = []
    for _ in range(_ROUNDS):
        steps[:] = 0
        steps[LEFT] = zone.words[NR_FREE]
        filled, start_ns = 0, time.perf_counter_ns()
        outcome = PASSED_OVER
        while outcome == PASSED_OVER:
            steps[FILLED] = 0
            outcome = walk_free_list(zone.words, zone.pages, 0, batch, filled, True, True, steps)
            filled += int(steps[FILLED])
        if filled:
            each_ns.append((time.perf_counter_ns() - start_ns) / filled)
        put_back(zone.words, zone.pages, batch, filled, False)
    return statistics.median(each_ns[1:])
