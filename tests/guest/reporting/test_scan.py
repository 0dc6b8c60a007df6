"""What is particular to the scan design: Linux's budget, and the drain."""

import math

import pytest

from pagetide.guest.allocator.isolate import PASS_OVER_MAX
from pagetide.guest.allocator.lists.free_list import rotate_to_front
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import FREE_PAGES, IDLE_PASSES, PASSES, REPORTED_PAGES
from pagetide.guest.reporting.settings import ReportingSettings
from tests.guest.reporting.virtual_worker import VirtualWorker

NONE = Watermarks(0, 0, 0)


def passes_by_linuxs_rule(nr_free: int, capacity: int) -> int:
    """How many passes an idle list takes: each spends ceil(nr_free / (16 * capacity)) reports and one more."""
    reports_a_pass = math.ceil(nr_free / (16 * capacity)) + 1
    return math.ceil(nr_free / (reports_a_pass * capacity))


@pytest.mark.parametrize(("blocks", "capacity"), [(384, 32), (64, 32), (65, 32), (1024, 32), (2048, 8), (5, 1)])
def test_linuxs_pace_takes_as_many_passes_as_its_budget_implies(blocks: int, capacity: int) -> None:
    """A list of free blocks is reported over the number of passes that the rule gives, each the delay apart."""
    worker = VirtualWorker("scan", Zone(blocks << 10, watermarks=NONE), ReportingSettings(10, 2.0, capacity, "linux"))
    worker.settle()
    expected = passes_by_linuxs_rule(blocks, capacity)
    assert worker.unreported() == []
    assert worker.passes == expected
    assert worker.now_s == 2.0 * expected


def test_a_drain_takes_one_pass() -> None:
    """With `drain` everything free goes in the first pass, in full batches."""
    worker = VirtualWorker("scan", Zone(384 << 10, watermarks=NONE), ReportingSettings(9, 2.0, 32, "drain"))
    worker.settle()
    assert worker.passes == 1
    assert [len(batch) for batch in worker.reported] == [32] * 12


def test_passes_are_counted_and_those_that_find_nothing() -> None:
    """By the timer a zone that is all reported is looked at in vain once every delay."""
    zone = Zone(4 << 10, watermarks=NONE)
    worker = VirtualWorker("scan", zone, ReportingSettings(9, 2.0, 2, "drain", wake="timer"))
    for _ in range(3):
        worker.run_pass()
    assert (zone.words[PASSES], zone.words[IDLE_PASSES]) == (3, 2)


def test_linuxs_pace_leaves_a_zone_below_its_mark_alone() -> None:
    """Below the low watermark plus one full batch Linux reports nothing at all."""
    zone = Zone(4096, watermarks=Watermarks(0, 4096 - (4 << 9) + 1, 4096))
    worker = VirtualWorker("scan", zone, ReportingSettings(9, 2.0, 4, "linux"))
    worker.settle()
    assert worker.reported == []
    above = VirtualWorker(
        "scan", Zone(4096, watermarks=Watermarks(0, 4096 - (4 << 9), 4096)), ReportingSettings(9, 2.0, 4, "linux")
    )
    above.settle()
    assert above.unreported() == []


def test_a_drain_near_the_low_watermark_takes_smaller_batches() -> None:
    """What is above the low watermark bounds a batch, so a small guest gets its memory back all the same."""
    zone = Zone(16 << 10, watermarks=Watermarks(0, 10 << 10, 0))
    worker = VirtualWorker("scan", zone, ReportingSettings(10, 2.0, 32, "drain"))
    worker.settle()
    assert worker.unreported() == []
    assert max(len(batch) for batch in worker.reported) == 6


def test_a_split_of_a_reported_block_wakes_a_drain() -> None:
    """Halves that lost their mark in a split are reported again although nothing was freed."""
    worker = VirtualWorker("scan", Zone(4096, watermarks=NONE), ReportingSettings(3, 2.0, 8, "drain"))
    worker.settle()
    assert worker.zone.allocate(4) is not None
    assert worker.unreported() != []
    worker.settle()
    assert worker.unreported() == []


def test_linuxs_pace_carries_a_batch_on_to_the_next_list() -> None:
    """Blocks of two orders travel in one report, as Linux's scatterlist does."""
    zone = Zone(3 << 10, watermarks=NONE, pcp_orders=(0,))
    assert zone.allocate(9) is not None
    worker = VirtualWorker("scan", zone, ReportingSettings(9, 2.0, 4, "linux"))
    worker.settle()
    assert [sorted(order for _, order in batch) for batch in worker.reported] == [[9, 10, 10]]


def test_a_drain_keeps_orders_apart() -> None:
    """With `drain` each list's blocks are reported before the walk goes up to the next."""
    zone = Zone(3 << 10, watermarks=NONE, pcp_orders=(0,))
    assert zone.allocate(9) is not None
    worker = VirtualWorker("scan", zone, ReportingSettings(9, 2.0, 32, "drain"))
    worker.settle()
    assert [[order for _, order in batch] for batch in worker.reported] == [[9], [10, 10]]


def test_a_walk_gets_past_many_reported_blocks() -> None:
    """An unreported block behind more reported ones than one hold of the lock passes over is still found."""
    nr_pages = 4 * (PASS_OVER_MAX + 50)
    zone = Zone(nr_pages, watermarks=NONE, pcp_batch=1, pcp_high=(1, 1))
    while zone.allocate(0) is not None:
        pass
    for pfn in range(0, nr_pages, 4):
        zone.free(pfn, 0)
    zone.drain_pcp(0)
    worker = VirtualWorker("scan", zone, ReportingSettings(0, 2.0, 64, "drain"))
    worker.settle()
    assert zone.words[REPORTED_PAGES] == zone.words[FREE_PAGES] == PASS_OVER_MAX + 50
    zone.free(2, 0)
    zone.drain_pcp(0)
    assert zone.free_list(0)[0] == 2
    rotate_to_front(zone.words, zone.pages, zone.free_list(0)[1], 0)
    assert zone.free_list(0)[-1] == 2
    worker.settle()
    assert worker.unreported() == []
    assert worker.reported[-1] == [(2, 0)]
