"""The simulated machine: the same code as the live one, in virtual time."""

import resource
from typing import Any

import msgspec
import pytest

from pagetide.guest.allocator.pcp import PCP_MAX_PAGES
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import Cost, read_costs
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from tests.machine.watcher import Watcher

pytestmark = pytest.mark.slow

MIB = 1 << 20
SMALL = RunConfig(ram_bytes=64 * MIB, bursts=2, hold_s=1.0, delay_s=0.1, order=6, capacity=4)


def run(**changes: Any) -> RunResult:
    """Run the small guest with these settings changed."""
    return SimulatedMachine(msgspec.structs.replace(SMALL, **changes), read_costs()).run(Watcher())


def is_right(result: RunResult) -> None:
    """Nothing is wrong with a run: stamps, bounds, and what was verified."""
    assert result.outcome == "complete"
    assert result.machine == "simulated"
    assert result.stamp_errors == 0
    assert result.checked_bytes == result.verified_bytes
    assert result.skipped_bytes is not None
    assert sum(result.skipped_bytes.values()) == 0
    assert result.isolated_blocks_max is not None
    assert result.isolated_blocks_max <= result.config.capacity


@pytest.mark.parametrize("design", sorted(DESIGNS.keys() - {"off", "balloon"}))
def test_what_a_burst_ate_comes_back(design: str) -> None:
    """Every design returns nearly all of each burst (`sync` keeps what fills no batch); then it is refaulted."""
    result = run(design=design, order=9 if design == "shared" else 6)
    is_right(result)
    for burst in result.bursts:
        assert burst.eaten_bytes > 47 * MIB
        assert burst.returned_bytes >= (0.85 if design == "sync" else 0.97) * burst.eaten_bytes
        assert design == "sync" or burst.return_lag_s is not None
    assert result.refaulted_bytes
    assert result.samples.refaulted_bytes[-1] == result.refaulted_bytes, "and that is seen as it happens"
    assert result.guest_cpu_s
    assert result.reporting_cpu_s is not None
    assert (result.reporting_cpu_s > 0) == (design != "shared"), "where the host takes frames, no guest reports"
    assert result.reporting_cpu_s < result.guest_cpu_s
    assert result.host_cpu_s


@pytest.mark.parametrize("design", sorted(DESIGNS.keys() - {"off", "sync", "balloon"}))
def test_a_burst_rests_though_the_timer_goes_on(design: str) -> None:
    """With the timer alone passes go on for ever, but a burst is over once one of them left nothing to do.

    `pool` keeps what would be allocated at the rate of late, which halves every six seconds.
    """
    result = run(design=design, order=9 if design == "shared" else 6, wake="timer", hold_s=0.2)
    is_right(result)
    assert result.bursts[-1].return_lag_s is not None
    assert result.duration_s < (60 if design == "pool" else 5)


def test_without_reporting_the_host_keeps_everything() -> None:
    """The control: with design `off` the burst's memory never comes back."""
    result = run(design="off")
    is_right(result)
    assert result.reports == 0
    assert result.samples.host_resident_bytes[-1] >= 47 * MIB


@pytest.mark.parametrize("design", ["scan", "sync", "hybrid", "shared", "balloon"])
@pytest.mark.parametrize("faults", [(), ("stop@0.5:1", "slow@2:3:4"), ("mmlock",)], ids=str)
def test_the_same_seed_gives_the_same_bytes(design: str, faults: tuple[str, ...]) -> None:
    """Two runs with the same settings are the same JSON, byte by byte; another seed is another run."""
    order = 9 if design == "shared" else 6
    first, second, other = (run(design=design, order=order, faults=faults, seed=seed) for seed in (3, 3, 4))
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    assert msgspec.json.encode(first.samples) != msgspec.json.encode(other.samples)


def test_time_is_what_the_costs_say() -> None:
    """With reports that cost the host ten times as much, it works ten times as long and memory comes back later."""
    costs = read_costs()
    ten = Cost(ns=10 * costs.element.ns, low_ns=0.0, high_ns=1e10)
    slow = msgspec.structs.replace(costs, element=ten)
    results = [SimulatedMachine(SMALL, given).run(Watcher()) for given in (costs, slow)]
    assert results[0].host_cpu_s is not None
    assert results[1].host_cpu_s is not None
    assert results[0].reports is not None
    more_s = results[1].host_cpu_s - results[0].host_cpu_s
    assert more_s == pytest.approx(9 * costs.element.ns / 1e9 * results[0].reports, rel=1e-6)


def test_huge_pages_come_and_go_whole() -> None:
    """On 2 MiB pages a first touch brings all of the page, and blocks of the page's size are returned."""
    result = run(backing="hugetmpfs", order=9)
    is_right(result)
    assert all(resident % (2 * MIB) == 0 for resident in result.samples.host_resident_bytes[:20])
    assert result.bursts[0].returned_bytes >= 0.9 * result.bursts[0].eaten_bytes


def test_parts_of_huge_pages_have_their_prices() -> None:
    """To split a page is the host's time, and to touch again what was given back of it the guest's."""
    config = msgspec.structs.replace(SMALL, backing="hugetmpfs", order=0)
    costs = read_costs()
    memfd, huge = (costs.backing(name) for name in ("memfd", "hugetmpfs"))
    dear = Cost(ns=1e7, low_ns=1e7, high_ns=1e7)
    split = msgspec.structs.replace(huge, split=dear)
    fault = msgspec.structs.replace(memfd, fault=dear, fault_shared=dear)
    results = [
        SimulatedMachine(config, msgspec.structs.replace(costs, backings=costs.backings | backings)).run(Watcher())
        for backings in ({}, {"hugetmpfs": split}, {"memfd": fault})
    ]
    host_s, split_s, _ = (result.host_cpu_s or 0.0 for result in results)
    guest_s, _, fault_s = (result.guest_cpu_s or 0.0 for result in results)
    assert split_s > 1.1 * host_s > 0
    assert fault_s > 1.1 * guest_s > 0


def test_a_stopped_host_stalls_sync_and_not_scan() -> None:
    """While the host is stopped `sync`'s vCPU waits for it; with `scan` none does. Both return it afterwards."""
    scan, sync = (run(design=design, bursts=1, faults=("stop@0.9:10",)) for design in ("scan", "sync"))
    for result in (scan, sync):
        is_right(result)
        (burst,) = result.bursts
        assert burst.returned_bytes >= (0.85 if result is sync else 0.97) * burst.eaten_bytes
    assert scan.vcpu_wait_host_s_max == 0.0
    assert sync.vcpu_wait_host_s_max is not None
    assert 9.0 < sync.vcpu_wait_host_s_max < 10.0
    assert scan.bursts[0].return_lag_s is not None
    assert 9.0 < scan.bursts[0].return_lag_s < 10.5


def test_a_slow_host_takes_longer() -> None:
    """A host that is slower by a factor returns memory later, and loses nothing."""
    normal, slow = run(bursts=1), run(bursts=1, faults=("slow@0:1000:20",))
    is_right(slow)
    lags_s = [result.bursts[0].return_lag_s for result in (normal, slow)]
    assert lags_s[0] is not None
    assert lags_s[1] is not None
    assert lags_s[1] > 2 * lags_s[0]
    assert slow.discarded_bytes == normal.discarded_bytes


TIGHT = {
    "ram_bytes": 32 * MIB,
    "eat_share": 0.9,
    "order": 0,
    "capacity": 512,
    "delay_s": 0.0,
    "bursts": 3,
    "hold_s": 0.0,
}


@pytest.mark.parametrize(("oom", "is_false"), [("none", True), ("wait", False), ("cap", False), ("swap", False)])
def test_false_ooms_come_with_none_and_with_nothing_else(oom: str, is_false: bool) -> None:
    """A slow host keeps much of a tight guest: allocations fail without need under `none`, and only there."""
    tight = RunConfig(ram_bytes=32 * MIB, eat_share=0.85, hold_s=0.0, delay_s=0.0, order=0, capacity=512)
    choices = {"oom": oom, "design": "notify", "in_flight_max_bytes": 4 * MIB, "faults": ("slow@0:1000:1000",)}
    result = run(**(msgspec.structs.asdict(tight) | choices))
    assert result.outcome == "complete"
    assert result.false_ooms is not None
    assert (result.false_ooms > 0) == is_false
    assert result.stamp_errors == 0


@pytest.mark.parametrize("design", ["scan", "cursor"])
def test_nobody_waits_for_a_lock_that_is_free(design: str) -> None:
    """Waits for the zone lock are as long as others hold it, and not as the worker's other work or a vCPU's rest."""
    result = run(
        design=design, workload="churn", ram_bytes=256 * MIB, order=0, capacity=32, duration_s=0.2, rate_per_s=2e5,
        delay_s=0.02,
    )  # fmt: skip
    list_s = PCP_MAX_PAGES * read_costs().moved_page.ps / 1e12
    assert result.zone_lock_wait_s_max is not None
    assert result.zone_lock_hold_s_max is not None
    assert 0 < result.zone_lock_wait_s_max <= 2 * (list_s + result.zone_lock_hold_s_max)


def test_a_workload_that_does_not_fit_says_so() -> None:
    """A guest that runs out of memory ends with the same reason as a live one."""
    result = run(ram_bytes=16 * MIB, eat_share=0.99)
    assert result.outcome.startswith("the guest stopped: it ran out of memory")


def test_a_broken_run_tells_when_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong inside ends the run with a sentence, and what was measured is there."""

    def fails(*_: object) -> None:
        raise AssertionError("a test broke it")

    monkeypatch.setattr("pagetide.guest.reporting.designs.scan.Scan.done", fails)
    result = run()
    assert result.outcome.startswith("the simulation broke at 0.1")
    assert result.outcome.endswith("s: a test broke it")
    assert result.samples.t_s


def test_ctrl_c_keeps_what_was_measured() -> None:
    """An interrupt in the middle ends the run as interrupted."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    result = SimulatedMachine(SMALL, read_costs()).run(Watcher(interrupt))
    assert result.outcome == "interrupted"
    assert result.samples.t_s


@pytest.mark.jit
def test_a_guest_of_1_tib_does_not_need_1_tib() -> None:
    """1 TiB of RAM of which a few GiB are used takes less than 2 GiB of ours, most of it page records."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run(ram_bytes=1 << 40, eat_share=0.002, bursts=1, order=9)
    is_right(result)
    assert result.bursts[0].returned_bytes >= 0.98 * result.bursts[0].eaten_bytes > 2 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 2 << 20


def test_a_day_is_looked_at_where_something_happens() -> None:
    """Hours of holding make few samples, and every burst's peak, floor and lag are seen as in a short run."""
    day, short = (run(bursts=3, hold_s=hold_s) for hold_s in (8 * 3600.0, 1.0))
    is_right(day)
    assert day.duration_s > 24 * 3600
    assert len(day.samples.t_s) < 100_000
    for long_burst, short_burst in zip(day.bursts, short.bursts, strict=True):
        assert long_burst.returned_bytes == pytest.approx(short_burst.returned_bytes, rel=0.01)
        assert long_burst.return_lag_s == pytest.approx(short_burst.return_lag_s, abs=0.05)


def test_what_is_not_simulated_is_refused() -> None:
    """A device that only the live machine has is named in one sentence, and nothing is run."""
    with pytest.raises(ConfigError, match="our device only"):
        run(device="qemu")


@pytest.mark.parametrize("design", ["pool", "scan"])
def test_a_pass_that_surveys_has_its_price(design: str) -> None:
    """Each pass of `pool` costs the guest's worker what one was measured to; other designs survey nothing."""
    config = msgspec.structs.replace(SMALL, design=design, order=0)
    costs = msgspec.structs.replace(read_costs(), survey=None)
    dear = msgspec.structs.replace(costs, survey=Cost(ns=1e6, low_ns=1e6, high_ns=1e6))
    plain, surveyed = (SimulatedMachine(config, each).run(Watcher()) for each in (costs, dear))
    assert plain.reporting_cpu_s is not None
    assert surveyed.reporting_cpu_s is not None
    assert surveyed.passes
    more_s = surveyed.reporting_cpu_s - plain.reporting_cpu_s
    assert more_s == pytest.approx(surveyed.passes * 1e-3 if design == "pool" else 0.0, rel=0.1)


def test_costs_of_before_shared_was_measured_say_so() -> None:
    """A file without the costs of taking frames still serves every other design."""
    old = msgspec.structs.replace(read_costs(), taking=None)
    assert SimulatedMachine(SMALL, old).run(Watcher()).outcome == "complete"
    with pytest.raises(ConfigError, match="none of the design shared: run `pagetide calibrate`"):
        SimulatedMachine(msgspec.structs.replace(SMALL, design="shared", order=9), old)
