"""What `shared` costs: the host for taking frames from the table, and the guest's allocator for keeping it.

A frame that is taken besides its discard costs the change of two states, its range, its share of a batch's bookkeeping
and of a discarding call that fails at once. A scan is a pass over a table in which nothing changed. The allocator's
ratios are those of blocks allocated and freed with the table kept and without, in turn.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.rows import Row
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.reporting.designs.shared import Shared
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.host.device.taking import FrameTaker
from pagetide.host.memory.ledger import DISCARDED_BYTES, Ledger
from pagetide.jit import kernel
from pagetide.memory.frame_table import (
    FRAME_ORDER,
    FRAME_PAGES,
    FRAME_SHIFT,
    FRAMES,
    FREE,
    STATE_MASK,
    TAKEN,
    table_words,
)
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.region_map import Region, RegionMap

_FRAMES = (16 << 30) >> FRAME_SHIFT
_NOT_OPEN_FD = 1 << 20
_CAPACITY = 32
_REPEATS = 51
_PAIRS = 9
_ROUNDS = 200_000
_DISCARD_BYTES = 256 << 20


def _table(frames: int) -> np.ndarray:
    table = np.zeros(table_words(frames * FRAME_PAGES), np.int64)
    table[FRAMES : FRAMES + frames] = FREE
    return table


def _scan_us() -> float:
    """A pass over 16 GiB all of which is taken."""
    table = _table(_FRAMES)
    table[FRAMES : FRAMES + _FRAMES] = TAKEN
    taker = FrameTaker(table, _FRAMES, RegionMap([]), Ledger(), capacity=_CAPACITY)
    spent = []
    for _ in range(_REPEATS):
        start_ns = time.perf_counter_ns()
        assert taker.take() is None
        spent.append(time.perf_counter_ns() - start_ns)
    return statistics.median(spent) / 1000


def _take_ns() -> float:
    """Taking 16 GiB of free frames in batches of a file that there is not, so that each call fails at once; a frame."""
    regions, ledger = RegionMap([Region(0, _FRAMES << FRAME_SHIFT, _NOT_OPEN_FD, 0, 0)]), Ledger()
    spent = []
    for _ in range(_REPEATS):
        table = _table(_FRAMES)
        taker = FrameTaker(table, _FRAMES, regions, ledger, capacity=_CAPACITY, verify_share=0.0)
        start_ns = time.perf_counter_ns()
        while taker.take() is not None:
            pass
        spent.append(time.perf_counter_ns() - start_ns)
        assert (table[FRAMES : FRAMES + _FRAMES] & STATE_MASK == TAKEN).all()
    assert ledger.words[DISCARDED_BYTES] == 0
    return statistics.median(spent[1:]) / _FRAMES


def _untouched_ns() -> float:
    """Taking free frames that hold no memory, the discarding calls included and joined; a frame."""
    frames = _DISCARD_BYTES >> FRAME_SHIFT
    spent = []
    with GuestRam.create(_DISCARD_BYTES, "memfd") as ram:
        regions = RegionMap([Region(0, _DISCARD_BYTES, ram.fd, 0, ram.address)])
        for _ in range(_REPEATS):
            taker = FrameTaker(_table(frames), frames, regions, Ledger(), capacity=_CAPACITY, verify_share=0.0)
            start_ns = time.perf_counter_ns()
            while taker.take() is not None:
                pass
            spent.append(time.perf_counter_ns() - start_ns)
    return statistics.median(spent[1:]) / frames


@kernel
def _pairs(words: np.ndarray, pages: np.ndarray, order: int, rounds: int) -> int:
    failed = 0
    for _ in range(rounds):
        pfn = allocate(words, pages, 0, order)
        failed += pfn < 0
        free(words, pages, 0, pfn, order)
    return failed


def _pair_s(zone: Zone, order: int) -> float:
    start_s = time.perf_counter()
    assert _pairs(zone.words, zone.pages, order, _ROUNDS) == 0
    return time.perf_counter() - start_s


def _kept_ratio(order: int) -> float:
    """The allocator with the table kept, against the same without."""
    kept, plain = Zone(1 << 18), Zone(1 << 18)
    Shared(kept, ReportingSettings()).start(0.0)
    ratios = []
    for _ in range(1 + _PAIRS):
        plain_s = _pair_s(plain, order)
        ratios.append(_pair_s(kept, order) / plain_s)
    return statistics.median(ratios[1:])


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    yield Row("shared, scan of 16 GiB, nothing changed", _scan_us(), "µs", at_most=150.0)
    yield Row("shared, take a free 2 MiB frame besides the discard", _take_ns(), "ns", at_most=150.0)
    yield Row("shared, take a free 2 MiB frame that holds no memory", _untouched_ns(), "ns")
    yield Row("shared, order-0 pair, table kept / not", _kept_ratio(0), "ratio", at_most=1.03)
    yield Row("shared, 2 MiB pair, table kept / not", _kept_ratio(FRAME_ORDER), "ratio")
