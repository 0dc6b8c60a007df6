"""A guest's threads against a host that a test holds by the hand: what waits for what."""

import mmap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pagetide import linux
from pagetide.guest.allocator.request import unreported_blocks
from pagetide.guest.allocator.zone import NEVER, Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    FALSE_OOMS,
    FREE_PAGES,
    ISOLATED_PAGES,
    PCP_COUNT,
    REPORTED_PAGES,
    REPORTING_ORDER,
    STAMP_ERRORS,
    WAIT_HOST_NS,
    WAIT_HOST_NS_MAX,
    WAITS_HOST,
    vcpu_base,
)
from pagetide.guest.in_flight import Isolated
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.vcpu import NO_MEMORY, run_operations
from pagetide.guest.vcpu_loop import OutOfMemoryError
from pagetide.machine.live import vcpu_thread
from pagetide.machine.live.guest_run import GuestRun
from pagetide.machine.live.guest_warm_up import warm_up_design, warm_up_guest
from pagetide.machine.live.guest_worker import GuestWorker, HostGoneError
from pagetide.machine.messages import PhaseBegan, PhaseEnded
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, lives
from pagetide.workload.plan import plan_of
from pagetide.workload.stream import Mark, Stream
from tests.machine.linux.eat_and_free import eat_and_free
from tests.machine.live.held_guest import NR_PAGES, Guest, guest_with

pytestmark = pytest.mark.alone

BLOCK_PAGES = 1024


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Compile what the threads will call: what they do within so many seconds is to be nothing but waiting."""
    warm_up_guest()
    for design in ("scan", "sync"):
        warm_up_design(design)


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest of 16 MiB."""
    with guest_with("scan", 4) as guest:
        yield guest


def test_an_allocation_waits_for_blocks_that_the_host_has(guest: Guest) -> None:
    """With all memory out for reporting an allocation waits instead of failing, and the wait is counted."""
    run = guest.run_of(2)
    with guest.worker:
        assert guest.host.submitted.wait(10)
        assert guest.zone.words[ISOLATED_PAGES] == NR_PAGES
        eater = threading.Thread(target=run.run, daemon=True)
        eater.start()
        assert guest.condition.waited_for.wait(10)
        assert len(guest.told) == 1, "nothing is free, so the phase cannot have ended"
        guest.host.answer(reports=1000)
        eater.join(10)
        assert not eater.is_alive()
    assert [type(message) for message in guest.told] == [PhaseBegan, PhaseEnded] * 2
    assert guest.zone.words[vcpu_base(0) + WAIT_HOST_NS_MAX] > 0
    assert guest.zone.words[FREE_PAGES] == NR_PAGES
    guest.zone.check()


def test_without_an_answer_to_oom_the_allocation_fails_falsely(guest: Guest) -> None:
    """With all memory out for reporting and no waiting, allocations fail, are counted, and the guest goes on."""
    with guest.worker:
        assert guest.host.submitted.wait(10)
        eater = threading.Thread(target=guest.run_of(2, waits=False).run, daemon=True)
        eater.start()
        assert guest.condition.waited_for.wait(10), "it is through with eating and freeing, and waits for the design"
        assert guest.zone.words[FALSE_OOMS] == 2
        assert guest.zone.words[vcpu_base(0) + WAITS_HOST] == 0
        guest.host.answer(reports=1000)
        eater.join(10)
        assert not eater.is_alive()
    assert guest.zone.words[FREE_PAGES] == NR_PAGES
    guest.zone.check()


def test_what_is_out_but_too_little_is_waited_for_without_a_spin() -> None:
    """With less out than is wanted no OOM is false; the vCPU sleeps until it is back, and then memory has run out."""
    with guest_with("scan", 1, order=9) as guest:
        taken = [guest.zone.allocate(order) for order in (10, 10, 10, 8, 8)]  # not 9, which has per-CPU lists
        assert None not in taken
        guest.zone.drain_pcp(0)  # the other half of the last block
        with guest.worker, ThreadPoolExecutor(1) as pool:
            assert guest.host.submitted.wait(10)
            assert guest.zone.words[ISOLATED_PAGES] == BLOCK_PAGES // 2
            eater = pool.submit(guest.run_of(1, waits=False).run)
            waited = guest.condition.waited_for.wait(10)
            guest.host.answer(reports=1000)
            with pytest.raises(OutOfMemoryError):
                eater.result(10)
        assert waited
        assert guest.zone.words[FALSE_OOMS] == 0


def test_a_synchronous_vcpu_stands_still_until_the_host_answers() -> None:
    """With `sync` the vCPU whose free fills a batch reports it, and frees nothing more before the host is done."""
    with guest_with("sync", 1) as guest:
        eater = threading.Thread(target=guest.run_of(2).run, daemon=True)
        guest.host.answer(reports=4)  # what was free at the start
        with guest.worker:
            with guest.condition:
                guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
            guest.host.submitted.clear()
            eater.start()
            assert guest.host.submitted.wait(10)
            assert guest.zone.words[FREE_PAGES] == 2 * BLOCK_PAGES, "one block is freed and out, the other still held"
            guest.host.answer(reports=1000)
            eater.join(10)
            assert not eater.is_alive()
        base = vcpu_base(0)
        assert guest.zone.words[base + WAITS_HOST] == 2
        assert guest.zone.words[base + WAIT_HOST_NS] >= guest.zone.words[base + WAIT_HOST_NS_MAX] > 0
        guest.zone.check()


def test_a_synchronous_vcpu_reports_what_its_idle_drain_completes() -> None:
    """With `sync` a block that merges only when an idle vCPU's list is drained is reported; the explorer found it."""
    with guest_with("sync", 1) as guest:
        guest.host.answer(reports=1000)
        with guest.worker:
            with guest.condition:
                guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
            guest.run_stream(eat_and_free(BLOCK_PAGES, 0)).run()
        assert guest.zone.words[REPORTED_PAGES] == NR_PAGES
        guest.zone.check()


def test_blocks_on_their_way_back_count_as_isolated(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that failed just before the blocks came back tries again, though nothing is isolated any more."""
    back, tried = threading.Event(), threading.Event()
    put_back = guest.design.done

    def done(batch: Batch, reported: bool, now_s: float) -> None:
        put_back(batch, reported, now_s)
        back.set()
        assert tried.wait(10)

    def fail_once(*arguments: Any) -> int:
        monkeypatch.setattr(vcpu_thread, "run_operations", run_operations)
        assert back.wait(10)
        assert guest.zone.words[ISOLATED_PAGES] == 0
        threading.Thread(target=let_go).start()
        return NO_MEMORY

    def let_go() -> None:
        assert guest.condition.waited_for.wait(10)
        tried.set()

    monkeypatch.setattr(guest.design, "done", done)
    monkeypatch.setattr(vcpu_thread, "run_operations", fail_once)
    with guest.worker:
        guest.host.answer(reports=1000)
        guest.run_of(2).run()
    assert len(guest.told) == 4


def test_blocks_that_come_back_between_look_and_wait_end_the_wait(guest: Guest) -> None:
    """All is back, and was told, when a vCPU that saw that something was out begins to wait: nobody tells it again."""

    class BackMeanwhile(Isolated):
        @property
        def begun(self) -> int:
            begun = super().begun
            guest.host.answer(reports=1000)
            with guest.condition:
                assert guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
            return begun

    in_flight = BackMeanwhile(guest.zone, guest.worker)
    run = GuestRun(guest.zone, guest.ram_address, eat_and_free(2, 10), 1, guest.worker, guest.tell, in_flight=in_flight)
    with guest.worker:
        assert guest.host.submitted.wait(10)
        eater = threading.Thread(target=run.run, daemon=True)
        eater.start()
        eater.join(10)
        went_on = not eater.is_alive()
        run.stop()
        eater.join(10)
    assert went_on, "it waits for ever"
    assert guest.zone.words[vcpu_base(0) + WAITS_HOST] == 1
    assert guest.zone.words[FREE_PAGES] == NR_PAGES


def test_without_isolated_blocks_running_out_is_an_error_at_once(guest: Guest) -> None:
    """An allocation that nothing could ever serve fails and does not wait."""
    guest.host.answer(reports=1000)
    with guest.worker, pytest.raises(OutOfMemoryError, match="ran out of memory"):
        guest.run_of(5).run()


def test_a_host_that_goes_away_wakes_whoever_waits_for_it(guest: Guest) -> None:
    """The allocation that waits ends with the reason, and does not hang."""
    failures: list[BaseException] = []

    def eat() -> None:
        try:
            guest.run_of(2).run()
        except HostGoneError as error:
            failures.append(error)

    with guest.worker:
        assert guest.host.submitted.wait(10)
        eater = threading.Thread(target=eat, daemon=True)
        eater.start()
        assert guest.condition.waited_for.wait(10)
        linux.eventfd_write(guest.host.connection_fd)
        eater.join(10)
        assert not eater.is_alive()
    assert [str(failure) for failure in failures] == ["the host closed the connection"]


def test_a_stop_ends_a_wait(guest: Guest) -> None:
    """A run that is stopped while it waits for the host ends soon, and so does its worker."""
    run = guest.run_of(2)
    with guest.worker:
        assert guest.host.submitted.wait(10)
        eater = threading.Thread(target=run.run, daemon=True)
        eater.start()
        assert guest.condition.waited_for.wait(10)
        run.stop()
        eater.join(10)
        assert not eater.is_alive()


def timed_run(guest: Guest, born_s: list[float]) -> GuestRun:
    """A run that allocates a page at each of these times, and keeps them."""
    stream = plan_of(lives(born_s, STAYS, 0, 0), name="timed", end_s=max(born_s)).whole()
    return GuestRun(guest.zone, guest.ram_address, stream, 1, guest.worker, guest.tell)


def test_who_frees_anothers_blocks_waits_for_them() -> None:
    """A vCPU that frees all blocks of another is never ahead of it, though both have everything to do at once."""
    alternate = np.arange(400) % 2
    stream = Stream(
        np.zeros(400), alternate.astype(np.uint8), np.zeros(400, np.uint8), (np.arange(400, dtype=np.int32) // 2 % 3),
        np.zeros(400, np.uint16), (Mark(0, "blocks"),), 0.0, alternate.astype(np.uint16),
    )  # fmt: skip
    stream.check()
    with mmap.mmap(-1, NR_PAGES * PAGE_SIZE_BYTES) as ram:
        view = np.frombuffer(ram, np.int64)
        zone = Zone(NR_PAGES, vcpus=2, watermarks=Watermarks(0, 0, 0))
        with GuestWorker(make_design("off", zone, ReportingSettings()), None, None) as worker:
            GuestRun(zone, view.ctypes.data, stream, 2, worker, lambda _: None).run()
        assert zone.words[FREE_PAGES] == NR_PAGES
        assert sum(zone.words[vcpu_base(vcpu) + STAMP_ERRORS] for vcpu in (0, 1)) == 0
        del view


def test_no_operation_runs_before_it_is_due(guest: Guest) -> None:
    """What is due at once runs at once, and the rest waits for the stream's clock; it is told how late it was."""
    guest.host.answer(reports=1000)
    held: list[int] = []

    def run() -> None:
        with guest.worker:
            timed_run(guest, [0.0, 0.0, 0.3]).run()

    start_s = time.monotonic()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    words = guest.zone.words
    while time.monotonic() < start_s + 0.25:
        held.append(NR_PAGES - int(words[FREE_PAGES] + words[ISOLATED_PAGES] + words[vcpu_base(0) + PCP_COUNT]))
    thread.join(10)
    assert held[-1] == 2, "the third was not due"  # in between, a look may fall into the refill of the per-CPU list
    assert time.monotonic() >= start_s + 0.3
    assert NR_PAGES - int(words[FREE_PAGES]) == 3
    ended = next(message for message in guest.told if isinstance(message, PhaseEnded))
    assert 0 < ended.behind_s < 5


def test_a_worker_that_fails_ends_a_run_that_waits_for_its_time(guest: Guest) -> None:
    """A guest with hours to go before its next operation notices at once that its host is gone."""
    run = timed_run(guest, [0.0, 3600.0])
    linux.eventfd_write(guest.host.connection_fd)
    guest.host.answer(reports=1000)
    with guest.worker, pytest.raises(HostGoneError):
        run.run()


def test_reporting_that_is_switched_off_and_on_loses_nothing(guest: Guest) -> None:
    """A design that is off reports nothing and is not at rest; switched on, it reports what is free."""
    guest.host.answer(reports=1000)
    with guest.worker:
        with guest.condition:
            assert guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
        assert unreported_blocks(guest.zone.words) == 0
        guest.worker.switch(False)
        pfn = guest.zone.allocate(10)
        assert pfn is not None
        guest.zone.free(pfn, 10)
        guest.worker.wake()
        give_up_s = time.monotonic() + 20
        while guest.zone.words[REPORTING_ORDER] != NEVER:
            assert time.monotonic() < give_up_s
        assert not guest.worker.at_rest
        guest.worker.switch(True)
        with guest.condition:
            assert guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
        assert unreported_blocks(guest.zone.words) == 0
    guest.zone.check()


def test_a_wake_that_comes_late_is_nothing_to_a_design_that_is_off(guest: Guest) -> None:
    """What was freed before the design was switched off asks for no pass after it, which would be due for ever."""
    guest.host.answer(reports=1000)
    woken: list[float] = []
    with guest.worker:
        with guest.condition:
            assert guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
        guest.worker.switch(False)
        give_up_s = time.monotonic() + 20
        while guest.zone.words[REPORTING_ORDER] != NEVER:
            assert time.monotonic() < give_up_s
        vars(guest.design)["woken"] = woken.append
        guest.worker.wake()
        guest.worker.switch(True)
        with guest.condition:
            assert guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
    assert not woken


def test_a_full_ring_keeps_nothing_out_and_loses_nothing(guest: Guest) -> None:
    """A report that finds no room fails at once: its blocks come back, and are reported when there is room again."""
    guest.worker.ring_full = True
    guest.host.answer(reports=1000)
    with guest.worker:
        with guest.condition:
            assert guest.condition.wait_for(lambda: guest.worker.batches_done >= 2, 10)
        assert not guest.host.submitted.is_set()
        assert unreported_blocks(guest.zone.words) == NR_PAGES // BLOCK_PAGES
        guest.worker.ring_full = False
        with guest.condition:
            assert guest.condition.wait_for(lambda: guest.worker.at_rest, 10)
        assert unreported_blocks(guest.zone.words) == 0
    guest.zone.check()
