"""What holds for every design that reports: one suite, run for each in the registry."""

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import ISOLATED_PAGES, SPARES
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.fits import misfit
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.guest.reporting.settings import ReportingSettings
from tests.guest.reporting.balloon_virtual_worker import BalloonVirtualWorker
from tests.guest.reporting.table_worker import TableWorker
from tests.guest.reporting.virtual_worker import VirtualWorker

NO_WATERMARKS = Watermarks(0, 0, 0)
REPORTING = sorted(set(DESIGNS) - {"off"})
"""`balloon` with a host that always wants all that is free, so that what is in the balloon is what was reported."""
TUNINGS: dict[str, dict[str, object]] = {
    "plain": {},
    "merge": {"wake": "merge"},
    "timer": {"wake": "timer"},
    "threshold": {"wake": "threshold"},
    "cool": {"cool_s": 1.0},
    "cap": {"wake": "merge", "oom": "cap", "in_flight_max_bytes": 4 << 20},
    "swap": {"wake": "merge", "oom": "swap"},
}


def settings_of(name: str, tuning: str) -> ReportingSettings:
    """What a tuning is for a design; in `sync` there is nobody to wake."""
    changes = {**TUNINGS[tuning]}
    if name == "sync" and "oom" in changes:
        del changes["wake"]
    order = 9 if name == "shared" else 3
    return ReportingSettings(order=order, delay_s=2.0, capacity=8)._replace(**changes)  # type: ignore[arg-type]


def fits(name: str, tuning: str) -> bool:
    """Whether a design takes a tuning."""
    if name == "balloon" and tuning == "timer":  # it looks by the clock whatever `wake` says
        return False
    return misfit(name, settings_of(name, tuning)) is None


_WORKERS: dict[str, type[VirtualWorker]] = {"shared": TableWorker, "balloon": BalloonVirtualWorker}
VARIANTS = [(name, tuning) for name in REPORTING for tuning in TUNINGS if fits(name, tuning)]
every_design = pytest.mark.parametrize(("name", "tuning"), [*VARIANTS, ("scan", "linux")], ids=str)
TUNINGS["linux"] = {"pace": "linux"}


def worker_of(
    name: str, tuning: str, *, nr_pages: int = 4096, order: int | None = None, **options: object
) -> VirtualWorker:
    """A small zone without watermarks, and a worker that drives the design over it; `shared` has its own order."""
    zone = Zone(nr_pages, vcpus=2, watermarks=NO_WATERMARKS, pcp_batch=4, pcp_high=(8, 8))
    chosen = settings_of(name, tuning)
    if order is not None and name != "shared":
        chosen = chosen._replace(order=order)
    kind = _WORKERS.get(name, VirtualWorker)
    return kind(name, zone, chosen, **options)  # type: ignore[arg-type]


@every_design
def test_reports_all_that_is_free_at_the_start(name: str, tuning: str) -> None:
    """Every reportable block that was free from the beginning is reported, once, and the design comes to rest."""
    worker = worker_of(name, tuning)
    worker.settle()
    blocks = [block for batch in worker.reported for block in batch]
    assert worker.unreported() == []
    spares = int(worker.zone.words[SPARES]) << 3
    assert worker.reported_pages == 4096 - spares
    if not spares:
        assert sum(1 << order for _, order in blocks) == 4096
        assert len(blocks) == len(set(blocks))
    assert worker.zone.words[ISOLATED_PAGES] == 0
    worker.zone.check()


@every_design
def test_waits_for_the_delay(name: str, tuning: str) -> None:
    """Nothing is isolated before the delay after the first request is over."""
    worker = worker_of(name, tuning)
    worker.tick(1.99)
    assert worker.next_batch(worker.now_s) is None
    worker.tick(2.0 - worker.now_s)
    assert worker.next_batch(worker.now_s) is not None


@every_design
def test_never_isolates_more_than_its_capacity(name: str, tuning: str) -> None:
    """At most `capacity` blocks are out of the allocator at any time; of a balloon, that the host is to deal with."""
    worker = worker_of(name, tuning, nr_pages=20 * 1024)
    worker.settle()
    worker.check_nothing_is_lost()
    assert 1 <= worker.blocks_out_max <= worker.blocks_max
    if tuning == "plain":
        assert worker.blocks_out_max == worker.blocks_max


@every_design
def test_rests_when_there_is_nothing_to_do(name: str, tuning: str) -> None:
    """A settled design wants no wake-up, and frees below its order do not change that."""
    worker = worker_of(name, tuning)
    worker.settle()
    small = [worker.zone.allocate(0) for _ in range(2)]
    worker.settle()
    assert worker.at_rest
    for pfn in small[:1]:
        assert pfn is not None
        worker.free(pfn, 0)
    worker.settle()
    assert worker.at_rest
    assert worker.next_batch(worker.now_s + 3600) is None


@every_design
def test_reports_what_is_freed_later(name: str, tuning: str) -> None:
    """A block freed after the design came to rest wakes it, once its vCPU is idle, and is reported after the delay."""
    worker = worker_of(name, tuning)
    held = worker.zone.allocate(worker.settings.order)
    worker.settle()
    at_rest_s = worker.now_s = worker.now_s + 100
    assert held is not None
    worker.free(held, worker.settings.order)
    worker.zone.drain_pcp(0)
    worker.report_if_full()
    worker.settle()
    if worker.design.leftover_blocks_max:
        worker.check_nothing_is_lost()
        return
    assert worker.unreported() == []
    assert any(pfn <= held < pfn + (1 << order) for pfn, order in worker.reported[-1])
    by_the_clock = worker.looks_by_clock or worker.settings.wake == "timer"
    assert worker.now_s >= at_rest_s + (0 if by_the_clock else 2.0)


@every_design
def test_survives_a_host_that_fails(name: str, tuning: str) -> None:
    """A failed report leaves its blocks free and unmarked, and they are reported once the host works again.

    Nothing need be freed for that, except at Linux's pace: Linux waits for the next request, too.
    """
    works = False
    worker = worker_of(name, tuning, host=lambda _: works)
    worker.run_pass()
    assert worker.reported == []
    assert worker.reported_pages == worker.blocks_out == 0
    works = True
    worker.settle()
    if tuning != "linux":
        worker.check_nothing_is_lost()
    block = worker.zone.allocate(5)
    assert block is not None
    worker.free(block, 5)
    worker.settle()
    worker.check_nothing_is_lost()


@every_design
def test_recovers_from_a_stalled_host(name: str, tuning: str) -> None:
    """Memory freed while the host sits on a batch for a minute is all reported afterwards."""
    held: list[int] = []

    def stall(_: Batch) -> bool:
        while held:
            worker.zone.free(held.pop(), 4)  # by another vCPU than the one that waits
        worker.now_s += 60
        return True

    worker = worker_of(name, tuning, host=stall)
    held += [pfn for _ in range(150) if (pfn := worker.zone.allocate(4)) is not None]
    assert len(held) == 150
    worker.report_if_full()
    worker.settle()
    worker.check_nothing_is_lost()
    worker.zone.check()


@every_design
@settings(deadline=None, max_examples=25, phases=[Phase.reuse, Phase.generate, Phase.shrink])
@given(data=st.data())
def test_loses_nothing_whatever_happens_meanwhile(name: str, tuning: str, data: st.DataObject) -> None:
    """Blocks come and go while passes run and reports fail; once that ends, every reportable block gets reported."""
    held: list[tuple[int, int]] = []
    coin = st.sampled_from([True, False])

    def churn(times: int) -> None:
        for _ in range(times):
            which = data.draw(st.integers(-20, len(held) - 1))
            if which >= 0:
                worker.zone.free(*held.pop(which))
            else:
                order = data.draw(st.integers(0, 8))
                pfn = worker.zone.allocate(order)
                if pfn is not None:
                    held.append((pfn, order))

    def host(_: Batch) -> bool:
        churn(data.draw(st.integers(0, 3)))
        return data.draw(coin)

    worker = worker_of(
        name,
        tuning,
        nr_pages=4096 if tuning == "swap" or name == "shared" else 1024,
        order=data.draw(st.integers(0, 10)),
        host=host,
    )
    for _ in range(data.draw(st.integers(0, 3))):
        churn(5)
        if worker.due_s is not None:
            worker.run_pass()
    worker.host = lambda _: True
    for pfn, order in held:
        worker.free(pfn, order)
    for vcpu in range(2):
        worker.zone.drain_pcp(vcpu)
    worker.report_if_full()
    worker.settle(passes_max=10_000)
    worker.zone.check()
    if tuning != "linux":
        worker.check_nothing_is_lost()


@every_design
def test_can_be_switched_off_and_on(name: str, tuning: str) -> None:
    """While it is off nothing is recorded or asked for; back on, what was freed meanwhile is reported, too."""
    worker = worker_of(name, tuning)
    worker.settle()
    held = [pfn for _ in range(20) if (pfn := worker.zone.allocate(5)) is not None]
    worker.settle()
    worker.design.stop()
    told = len(worker.reported)
    for pfn in held:
        worker.free(pfn, 5)
    assert worker.due_s is None
    assert worker.next_batch(worker.now_s + 100) is None
    assert worker.zone.words[SPARES] == 0
    assert len(worker.reported) == told
    worker.zone.check()
    worker.design.start(worker.now_s)
    worker.settle()
    worker.check_nothing_is_lost()
    assert worker.unreported() == [], "what is free at a start is found without hints"
    worker.zone.check()
