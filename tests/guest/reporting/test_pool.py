"""The design `pool`: what it keeps, what it reports, and what is allocated first."""

import numpy as np
import pytest

from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import TICKS_PER_S, Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    FREE_PAGES,
    KEEP_APART,
    KEEP_MARKS,
    PASSES,
    RECORD_WORDS,
    REPORTED_PAGES,
    STATE,
    TICK,
    TICK_SHIFT,
    WMARK_MIN,
)
from pagetide.guest.reporting.designs.pool import Pool
from pagetide.guest.reporting.fits import POOL_DELAY_S_MIN
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.memory.frame_table import FRAME_PAGES
from tests.guest.reporting.virtual_worker import VirtualWorker

NR_PAGES = 8192
SETTINGS = ReportingSettings(order=0, capacity=1024, keep_s=5.0, idle_s=4.0)


def settled(settings: ReportingSettings = SETTINGS) -> VirtualWorker:
    """A guest of 32 MiB whose free memory is all reported, and which has been idle for long."""
    zone = Zone(NR_PAGES, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1), pcp_orders=())
    worker = VirtualWorker("pool", zone, settings)
    worker.settle()
    worker.tick(100.0)
    worker.reported.clear()
    return worker


def pages_of(worker: VirtualWorker) -> set[int]:
    """Every page that was reported."""
    return {
        page for batch in worker.reported for pfn, order in batch for page in range(pfn, pfn + (1 << order))
    }  # fmt: skip


def taken(zone: Zone, order: int, blocks: int = 1) -> list[int]:
    """So many blocks, which there are."""
    found = [zone.allocate(order) for _ in range(blocks)]
    assert None not in found
    return [pfn for pfn in found if pfn is not None]


def passes_until(worker: VirtualWorker, until_s: float) -> None:
    """Run what is due by then."""
    if take_wake(worker.zone.words):
        worker.design.woken(worker.now_s)
    while worker.due_s is not None and worker.due_s <= until_s:
        worker.run_pass()
    worker.tick(max(0.0, until_s - worker.now_s))


def test_what_is_unreported_is_allocated_first_whatever_its_order() -> None:
    """A page comes out of a large unreported block although reported single pages fit better."""
    worker = settled()
    zone = worker.zone
    (block,) = taken(zone, 5)
    pages = taken(zone, 0, 2)
    worker.free(pages[0], 0)
    zone.drain_pcp(0)
    worker.settle()
    worker.free(block, 5)
    reported = int(zone.words[REPORTED_PAGES])
    assert [b.order for b in zone.blocks() if b.kind == BUDDY and not b.reported] == [5]
    assert block <= taken(zone, 0)[0] < block + 32
    assert zone.words[REPORTED_PAGES] == reported


@pytest.mark.parametrize(("unit_order", "held"), [(0, 256), (9, 512)])
def test_only_whole_pages_of_the_host_are_reported(unit_order: int, held: int) -> None:
    """Of a host that gives back 2 MiB at a time a part of one is never asked for, and whole ones are."""
    worker = settled(SETTINGS._replace(order=unit_order, unit_order=unit_order))
    lower, upper, other, _ = taken(worker.zone, 8, 4)
    worker.free(lower, 8)
    worker.free(upper, 8)
    worker.free(other, 8)
    worker.settle()
    assert pages_of(worker) == set(range(lower, lower + 512)) | (set() if unit_order else {*range(other, other + 256)})
    assert worker.zone.words[REPORTED_PAGES] == NR_PAGES - held


def test_the_last_block_freed_is_the_first_allocated() -> None:
    """Of unreported blocks of an order the youngest is taken, so that the others get old."""
    worker = settled()
    blocks = taken(worker.zone, 3, 6)
    for pfn in (blocks[0], blocks[2], blocks[4]):
        worker.free(pfn, 3)
    assert taken(worker.zone, 3, 3) == [blocks[4], blocks[2], blocks[0]]


def test_blocks_with_different_marks_merge_only_when_nothing_else_is_left() -> None:
    """A reported and an unreported buddy stay apart, until an allocation would fail otherwise."""
    worker = settled()
    zone = worker.zone
    blocks = taken(zone, 10, 8)
    worker.free(blocks[0], 10)
    lower = taken(zone, 9)[0]
    worker.settle()
    worker.free(lower, 9)
    assert {(b.order, b.reported) for b in zone.blocks() if b.kind == BUDDY} == {(9, True), (9, False)}
    zone.check()
    assert taken(zone, 10) == [blocks[0]]
    zone.check()


def test_pages_times_ages_survive_merging() -> None:
    """A young block that merges with an old one makes a block of medium age, and so is due in between."""
    worker = settled()
    lower, upper = taken(worker.zone, 8, 2)
    assert upper == lower ^ 256
    worker.free(lower, 8)
    worker.tick(8.0)
    worker.free(upper, 8)
    (merged,) = [b for b in worker.zone.blocks() if b.kind == BUDDY and not b.reported]
    assert (merged.pfn, merged.order) == (lower, 9)
    since_tick = int(worker.zone.pages[RECORD_WORDS * lower + STATE]) >> TICK_SHIFT
    assert worker.zone.words[TICK] - since_tick == 4 * TICKS_PER_S


def test_an_idle_guest_reports_large_runs_first_and_single_pages_later() -> None:
    """After the least time a frame is due; a single page waits until its age pays for the call as well."""
    worker = settled()
    zone = worker.zone
    (frame,) = taken(zone, 9)
    single, *rest = taken(zone, 0, 3)
    start_s = worker.now_s
    worker.free(frame, 9)
    worker.free(rest[0], 0)
    zone.drain_pcp(0)
    passes_until(worker, start_s + 3.9)
    assert worker.reported == []
    passes_until(worker, start_s + 6.0)
    assert pages_of(worker) == set(range(frame, frame + FRAME_PAGES))
    passes_until(worker, start_s + 40.0)
    assert pages_of(worker) == {*range(frame, frame + FRAME_PAGES), rest[0]}
    assert worker.at_rest
    assert single not in pages_of(worker)


def test_a_busy_guest_keeps_what_it_is_about_to_use() -> None:
    """Blocks come and go at a steady rate: what would be taken within the next seconds is never reported."""
    worker = settled()
    zone = worker.zone
    held = taken(zone, 4, 64)
    worker.settle()
    worker.reported.clear()
    first, spare = held[:32], held[32:]
    for pfn in spare:
        worker.free(pfn, 4)
    for _ in range(60):
        for pfn in first:
            worker.free(pfn, 4)
        passes_until(worker, worker.now_s + 0.5)
        first = taken(zone, 4, 32)
    assert worker.reported == []
    assert zone.words[FREE_PAGES] - zone.words[REPORTED_PAGES] == 32 * 16


def test_what_is_kept_goes_once_nothing_is_allocated_any_more() -> None:
    """The rate decays, and all that is free is reported within half a minute."""
    worker = settled()
    for _ in range(20):
        blocks = taken(worker.zone, 4, 64)
        for pfn in blocks:
            worker.free(pfn, 4)
        passes_until(worker, worker.now_s + 0.5)
    passes_until(worker, worker.now_s + 30.0)
    assert worker.at_rest
    assert worker.zone.words[REPORTED_PAGES] == worker.zone.words[FREE_PAGES] == NR_PAGES


def test_a_batch_is_no_more_than_what_may_be_in_flight() -> None:
    """What is out at once is bounded in bytes, besides in blocks."""
    zone = Zone(NR_PAGES, watermarks=Watermarks(0, 0, 0))
    worker = VirtualWorker("pool", zone, SETTINGS._replace(in_flight_max_bytes=8 << 20))
    worker.settle()
    sizes = [sum(1 << order for _, order in batch) for batch in worker.reported]
    assert sizes == [2048] * 4


def test_a_zone_is_whole_again_once_it_is_off() -> None:
    """What was kept apart by marks merges when the design is switched off, and marks keep nothing apart any more."""
    worker = settled()
    blocks = taken(worker.zone, 9, 3)
    worker.free(blocks[0], 9)
    assert worker.zone.words[KEEP_MARKS] == KEEP_APART
    worker.design.stop()
    worker.zone.check()
    for pfn in blocks[1:]:
        worker.free(pfn, 9)
    worker.zone.check()
    orders = np.unique([block.order for block in worker.zone.blocks()])
    assert orders.tolist() == [10]


def test_a_pass_is_not_followed_at_once_by_another() -> None:
    """With the least delay a pass that leaves what is kept is followed by one a tenth of a second later."""
    worker = settled(SETTINGS._replace(delay_s=POOL_DELAY_S_MIN))
    for pfn in taken(worker.zone, 0, 64):
        worker.zone.free(pfn, 0)
    assert take_wake(worker.zone.words)
    worker.design.woken(worker.now_s)
    assert worker.due_s is not None
    begins_s = worker.due_s
    worker.run_pass()
    assert worker.due_s is not None, "what is kept is looked at again"
    assert worker.due_s >= begins_s + 0.1


def test_no_pass_before_anything_can_be_due() -> None:
    """After a pass that finds nothing old enough the next one comes when something may be, and not every second."""
    worker = settled(SETTINGS._replace(keep_s=0.0))
    (frame,) = taken(worker.zone, 9)
    passes, start_s = int(worker.zone.words[PASSES]), worker.now_s
    worker.free(frame, 9)
    passes_until(worker, start_s + 6.0)
    assert pages_of(worker) == set(range(frame, frame + FRAME_PAGES))
    assert worker.zone.words[PASSES] - passes <= 3


def test_a_pass_is_put_off_no_longer_than_fresh_memory_takes_to_be_due() -> None:
    """However much is kept the next pass comes within `idle_s`, so that it sees when much is freed."""
    worker = settled(SETTINGS._replace(keep_s=1000.0))
    for pfn in taken(worker.zone, 4, 64):
        worker.free(pfn, 4)
    worker.run_pass()
    assert worker.due_s is not None, "what is kept is looked at again"
    assert worker.now_s + 1.0 < worker.due_s <= worker.now_s + SETTINGS.idle_s


@pytest.mark.parametrize("more", [0, 2])
def test_a_pass_waits_until_enough_can_be_due(more: int) -> None:
    """A few pages that are due before many wait for those; alone they do not."""
    worker = settled(SETTINGS._replace(keep_s=0.0))
    (few,), many = taken(worker.zone, 4), taken(worker.zone, 10, more)
    start_s = worker.now_s
    worker.free(few, 4)
    worker.step()
    worker.tick(1.5)
    for pfn in many:
        worker.free(pfn, 10)
    passes_until(worker, start_s + 5.1)
    assert pages_of(worker) == (set() if more else {*range(few, few + 16)})
    passes_until(worker, start_s + 5.7)
    assert len(pages_of(worker)) == 16 + 1024 * more
    assert len(worker.reported) == 1


def test_memory_freed_after_all_was_reported_is_looked_at_once_it_can_be_due() -> None:
    """The first pass after a rest comes after `idle_s`, and the rest does not count for the rate."""
    worker = settled(SETTINGS._replace(keep_s=1.0))
    (first,) = taken(worker.zone, 10)
    start_s = worker.now_s
    worker.free(first, 10)
    worker.step()
    assert worker.due_s == start_s + SETTINGS.idle_s
    worker.tick(SETTINGS.idle_s / 2)
    blocks = taken(worker.zone, 10, 4)
    for pfn in blocks:
        worker.free(pfn, 10)
    passes_until(worker, start_s + SETTINGS.idle_s + 0.1)
    assert pages_of(worker) == set(), "4096 pages in 4 s: as many as in a second are kept, and the rest is young"
    assert isinstance(worker.design, Pool)
    assert worker.design._keep_pages == 1024


def test_a_free_does_not_wake_the_worker_for_a_pass_that_comes_anyway() -> None:
    """While unreported memory waits for the next pass nothing is told of a free; once all is reported it is again."""
    worker = settled()
    blocks = taken(worker.zone, 4, 3)
    worker.free(blocks[0], 4)
    worker.run_pass()
    assert worker.due_s is not None, "what is young is looked at again"
    worker.zone.free(blocks[1], 4)
    assert not take_wake(worker.zone.words)
    passes_until(worker, worker.now_s + 30.0)
    assert worker.at_rest
    worker.zone.free(blocks[2], 4)
    assert take_wake(worker.zone.words)


def test_an_allocation_that_the_watermark_forbids_merges_nothing() -> None:
    """What is kept apart merges only for an allocation that the free pages would do for: another walk is in vain."""
    zone = Zone(64, watermarks=Watermarks(0, 0, 0), pcp_batch=1, pcp_high=(1, 1), pcp_orders=())
    worker = VirtualWorker("pool", zone, SETTINGS._replace(keep_s=0.0))
    worker.settle()
    (pfn,) = taken(zone, 0)
    zone.free(pfn, 0)
    reported = int(zone.words[REPORTED_PAGES])
    assert reported == 63
    zone.words[WMARK_MIN] = 1
    assert zone.allocate(6) is None
    assert zone.words[REPORTED_PAGES] == reported
    zone.words[WMARK_MIN] = 0
    assert zone.allocate(6) == 0
