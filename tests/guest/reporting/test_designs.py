"""What each of the thread's designs does that the others do not."""

import numpy as np
import pytest

from pagetide.guest.allocator.isolate import PASS_OVER_MAX
from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import DROPPED_HINTS, DROPPED_PAGES, HINTS, ISOLATED_PAGES, NR_REPORTED, WAKE
from pagetide.guest.reporting.designs.hybrid import Hybrid
from pagetide.guest.reporting.settings import ReportingSettings
from tests.guest.reporting.virtual_worker import VirtualWorker

BLOCK = 5
PAGES = 1 << BLOCK


def worker_of(name: str, nr_pages: int = 64 * PAGES, **tuning: object) -> VirtualWorker:
    """A settled design over a small zone, with blocks of 128 KiB."""
    zone = Zone(nr_pages, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1))
    settings = ReportingSettings(order=BLOCK, capacity=4)._replace(**tuning)  # type: ignore[arg-type]
    worker = VirtualWorker(name, zone, settings)
    worker.settle()
    worker.reported.clear()
    return worker


def eat(worker: VirtualWorker) -> list[int]:
    """All of the zone, in blocks of the reporting order."""
    blocks = []
    while (pfn := worker.zone.allocate(BLOCK)) is not None:
        blocks.append(pfn)
    return blocks


def reported_pages(worker: VirtualWorker) -> int:
    """How much the host was told of."""
    return sum(1 << order for batch in worker.reported for _, order in batch)


def test_notify_runs_at_its_threshold_and_not_before() -> None:
    """Fifteen hints wake nobody; the sixteenth does, without delay, and all sixteen are reported."""
    worker = worker_of("notify")
    blocks = eat(worker)[::2]  # no two of these merge
    for pfn in blocks[:15]:
        worker.free(pfn, BLOCK)
    assert worker.zone.words[WAKE] == 0
    assert worker.zone.words[HINTS] == 15
    worker.free(blocks[15], BLOCK)
    assert take_wake(worker.zone.words)
    worker.design.woken(worker.now_s)
    assert worker.design.due_s == worker.now_s
    worker.settle()
    assert reported_pages(worker) == 16 * PAGES


def test_a_full_array_drops_hints_and_counts_them() -> None:
    """While nobody reads it the array keeps its length; the rest is dropped, counted, and never reported."""
    worker = worker_of("notify-array", hints_max=20)
    blocks = eat(worker)[::2]
    for pfn in blocks:
        worker.free(pfn, BLOCK)
    assert worker.zone.words[DROPPED_HINTS] == len(blocks) - 20
    assert worker.zone.words[DROPPED_PAGES] == (len(blocks) - 20) * PAGES
    worker.settle()
    assert reported_pages(worker) == 20 * PAGES
    assert len(worker.unreported()) == len(blocks) - 20


def test_hybrid_scans_once_when_too_much_was_dropped() -> None:
    """After drops one sweep finds everything; without drops there is none."""
    worker = worker_of("hybrid", hints_max=20)
    assert isinstance(worker.design, Hybrid)
    assert worker.design.sweeps == 1, "what was free at the start"
    blocks = eat(worker)
    for pfn in blocks[:40:2]:
        worker.free(pfn, BLOCK)
    worker.settle()
    assert worker.design.sweeps == 1
    for pfn in blocks[1::2]:
        worker.free(pfn, BLOCK)
    assert worker.zone.words[DROPPED_HINTS] > 0
    worker.settle()
    assert worker.design.sweeps == 2
    assert worker.unreported() == []


def test_hybrid_counts_the_hints_that_came_to_nothing() -> None:
    """Hints whose blocks were allocated again are used up: one dropped of 53 is below 3 %, of 21 it would not be."""
    worker = worker_of("hybrid", hints_max=20, drop_share=0.03)
    assert isinstance(worker.design, Hybrid)
    blocks = eat(worker)[::2]  # no two of these merge
    for _ in range(2):
        for pfn in blocks[:16]:
            worker.free(pfn, BLOCK)
        eat(worker)
        worker.settle()
        assert worker.zone.words[HINTS] == 0
    assert worker.reported == []
    for pfn in blocks[:21]:
        worker.free(pfn, BLOCK)
    assert worker.zone.words[DROPPED_HINTS] == 1
    worker.settle()
    assert reported_pages(worker) == 20 * PAGES
    assert worker.design.sweeps == 1


def test_sync_reports_in_the_vcpu_that_filled_the_batch() -> None:
    """Each fourth free reports four blocks before it returns; three leave nothing but hints."""
    worker = worker_of("sync")
    blocks = eat(worker)[::2]
    for pfn in blocks[:7]:
        worker.free(pfn, BLOCK)
    assert [len(batch) for batch in worker.reported] == [4]
    assert len(worker.unreported()) == 3
    worker.free(blocks[7], BLOCK)
    assert [len(batch) for batch in worker.reported] == [4, 4]


def test_cursor_reports_in_the_order_of_addresses() -> None:
    """Whatever the order of the frees, a pass goes up through the zone, so that neighbours travel together."""
    worker = worker_of("cursor")
    blocks = eat(worker)[::2]
    np.random.default_rng(1).shuffle(blocks)
    for pfn in blocks:
        worker.free(pfn, BLOCK)
    worker.settle()
    told = [pfn for batch in worker.reported for pfn, _ in batch]
    turn = told.index(min(told))
    assert told[turn:] + told[:turn] == sorted(blocks)


@pytest.mark.parametrize(("name", "again"), [("cursor", 0), ("notify", 0), ("scan", PAGES - 1)])
def test_what_is_left_of_a_split_is_reported_again_only_by_linux(name: str, again: int) -> None:
    """A page taken from a reported block costs Linux's design the marks of the rest; KEEP_MARKS keeps them."""
    zone = Zone(PAGES << 1, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1))
    worker = VirtualWorker(name, zone, ReportingSettings(order=0, capacity=8, wake="merge"))
    worker.settle()
    worker.reported.clear()
    assert zone.allocate(BLOCK) is not None
    assert zone.allocate(0) is not None
    worker.settle()
    assert reported_pages(worker) == again


@pytest.mark.parametrize(("name", "found"), [("scan", True), ("cursor", True), ("scan-restart", False)])
def test_only_a_walk_that_begins_anew_misses_what_lies_behind(name: str, *, found: bool) -> None:
    """A block behind more reported ones than a walk may pass is reached by a walk that goes on, and by a cursor."""
    worker = worker_of(name, nr_pages=(2 * PASS_OVER_MAX + 100) * PAGES, capacity=512)
    blocks = eat(worker)
    for pfn in (*blocks[2:4], *blocks[4::2]):
        worker.free(pfn, BLOCK)
    worker.settle(passes_max=1000)
    worker.reported.clear()
    assert worker.zone.words[NR_REPORTED + BLOCK] > PASS_OVER_MAX
    worker.free(blocks[0], BLOCK)  # its larger buddy is free, so it joins the list at the tail
    assert worker.zone.free_list(BLOCK)[-1] == blocks[0]
    if take_wake(worker.zone.words):
        worker.design.woken(worker.now_s)
    for _ in range(20):
        if worker.design.due_s is not None:
            worker.run_pass()
    assert ([(blocks[0], BLOCK)] in worker.reported) == found


@pytest.mark.parametrize("name", ["scan", "cursor", "notify", "notify-array", "hybrid", "scan-restart"])
def test_a_block_is_reported_only_once_it_is_cool(name: str) -> None:
    """Nothing is reported that was free for less than `cool_s`; once it was, it is."""
    worker = worker_of(name, cool_s=30.0, delay_s=1.0, wake="merge")
    blocks = eat(worker)[::2]
    worker.tick(100.0)
    worker.settle()
    freed_s = worker.now_s
    for pfn in blocks:
        worker.free(pfn, BLOCK)
    assert take_wake(worker.zone.words)
    worker.design.woken(worker.now_s)
    while worker.design.due_s is not None and worker.design.due_s < freed_s + 30.0:
        worker.run_pass()
        assert not worker.reported, f"after {worker.now_s - freed_s} s"
    worker.settle()
    assert worker.unreported() == []
    assert worker.now_s >= freed_s + 30.0


@pytest.mark.parametrize("name", ["notify-array", "hybrid"])
def test_what_a_sweep_finds_too_young_is_swept_again(name: str) -> None:
    """No hint names what is free at the start: a sweep that comes too early for some of it is not the last one."""
    worker = worker_of(name, cool_s=30.0, delay_s=1.0, wake="merge")
    worker.tick(0.0)
    worker.settle()
    assert worker.unreported() == []
    assert worker.now_s >= 30.0


def test_a_cap_bounds_what_is_out() -> None:
    """However large the capacity, no more than `in_flight_max_bytes` are isolated at once."""
    out: list[int] = []
    zone = Zone(64 * 1024, watermarks=Watermarks(0, 0, 0))
    settings = ReportingSettings(order=9, capacity=32, oom="cap", in_flight_max_bytes=16 << 20)

    def host(_: object) -> bool:
        out.append(int(zone.words[ISOLATED_PAGES]))
        return True

    worker = VirtualWorker("scan", zone, settings, host)
    worker.settle()
    assert worker.unreported() == []
    assert max(out) == (16 << 20) >> 12


@pytest.mark.parametrize("name", ["scan", "cursor", "notify", "hybrid"])
def test_with_spares_the_allocator_never_misses_a_page(name: str) -> None:
    """While blocks are out spares take their place: an allocation finds as much as if nothing were out."""
    free: list[int] = []
    zone = Zone(64 * 1024, watermarks=Watermarks(0, 0, 0))

    def host(_: object) -> bool:
        free.append(sum(1 << b.order for b in zone.blocks() if b.kind == 0x10))
        return True

    worker = VirtualWorker(name, zone, ReportingSettings(order=9, capacity=8, oom="swap"), host)
    worker.settle()
    worker.check_nothing_is_lost()
    spares = 8 << 9
    assert set(free) == {64 * 1024 - spares}


@pytest.mark.parametrize("name", ["scan", "cursor", "notify", "notify-array", "hybrid"])
def test_by_the_timer_alone_nobody_is_woken(name: str) -> None:
    """What is freed wakes nobody, but the design is not at rest until the pass that the clock brings, 2 s later."""
    worker = worker_of(name, wake="timer")
    blocks = eat(worker)[::2]
    worker.settle()
    assert worker.design.at_rest
    due_s = worker.design.due_s
    assert due_s is not None
    worker.free(blocks[0], BLOCK)
    assert worker.zone.words[WAKE] == 0
    assert not worker.design.at_rest
    worker.run_pass()
    assert worker.now_s == due_s
    assert worker.design.at_rest
    assert worker.design.due_s == due_s + 2.0
    assert reported_pages(worker) == PAGES


@pytest.mark.parametrize("name", ["notify-array", "hybrid", "sync"])
def test_a_sweep_that_failed_goes_on(name: str) -> None:
    """A report that fails at the start leaves a sweep half done; it goes on by itself, though nothing is freed."""
    works = False
    zone = Zone(64 * PAGES, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1))
    worker = VirtualWorker(name, zone, ReportingSettings(order=BLOCK, capacity=1), lambda _: works)
    worker.run_pass()
    works = True
    worker.settle()
    worker.check_nothing_is_lost()
    assert len(worker.unreported()) <= 1


def test_sync_sweeps_for_what_its_array_had_no_room_for() -> None:
    """While reports fail the vCPU goes on and its array overflows; once they succeed again nothing is left."""
    works = True
    zone = Zone(2200, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1))
    worker = VirtualWorker("sync", zone, ReportingSettings(order=0, capacity=32), lambda _: works)
    worker.settle()
    pages = [pfn for _ in range(2200) if (pfn := zone.allocate(0)) is not None]
    works = False
    for pfn in pages[:-2:2]:  # no two of these merge
        zone.free(pfn, 0)
    worker.report_if_full()
    assert zone.words[DROPPED_HINTS] > 0
    works = True
    worker.free(pages[-2], 0)
    worker.settle()
    worker.check_nothing_is_lost()


def test_a_vcpu_that_failed_to_report_need_not_come_by_again() -> None:
    """Its full batches are reported by the worker once reports succeed again, though nothing more is freed."""
    worker = worker_of("sync")
    blocks = eat(worker)[:18:2]
    worker.host = lambda _: False
    for pfn in blocks:
        worker.free(pfn, BLOCK)
    assert len(worker.unreported()) == 9
    worker.host = lambda _: True
    worker.settle()
    assert len(worker.unreported()) == 1
