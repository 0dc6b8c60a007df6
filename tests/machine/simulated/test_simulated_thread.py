"""The thread's arguments in virtual time: the host that stops while the big free happens, and the false OOM."""

import msgspec
import pytest

from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.costs import read_costs
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import ORDER_MAX, block_bytes
from tests.machine.watcher import Watcher

MIB = 1 << 20
STALL_S = 60.0
MAILS_CASE = RunConfig(ram_bytes=512 * MIB, bursts=1, hold_s=1.0, hints_max=16, faults=("stop@0.9:60",))


def run(config: RunConfig, **changes: object) -> RunResult:
    """A simulated run with these settings changed."""
    config = msgspec.structs.replace(config, **changes)
    config.check()
    return SimulatedMachine(config, read_costs()).run(Watcher())


@pytest.mark.jit
@pytest.mark.parametrize("design", ["scan", "cursor", "hybrid", "notify", "shared"])
def test_after_a_stall_of_the_host_everything_comes_back(design: str) -> None:
    """At least 99 % within 10 s after the host goes on, and no vCPU waited meanwhile."""
    result = run(MAILS_CASE, design=design)
    (burst,) = result.bursts
    assert result.outcome == "complete"
    assert burst.returned_bytes >= 0.99 * burst.eaten_bytes
    assert burst.return_lag_s is not None
    assert STALL_S - 1.0 < burst.return_lag_s < STALL_S + 10.0
    assert result.vcpu_waits_host == result.stamp_errors == 0


@pytest.mark.jit
def test_notification_that_drops_keeps_what_it_dropped() -> None:
    """With bounded arrays most of the burst never comes back, and the dropped hints say so."""
    result = run(MAILS_CASE, design="notify-array")
    (burst,) = result.bursts
    assert burst.return_lag_s is None
    kept_bytes = burst.eaten_bytes - burst.returned_bytes
    assert kept_bytes > 0.5 * burst.eaten_bytes
    assert result.dropped_bytes is not None
    below_the_threshold_bytes = 2 * 15 * block_bytes(ORDER_MAX)
    assert kept_bytes <= result.dropped_bytes + below_the_threshold_bytes
    assert result.vcpu_waits_host == 0


@pytest.mark.jit
def test_a_hybrid_that_may_drop_nearly_all_keeps_it() -> None:
    """Up to the share that it may drop it does not scan, and then keeps as much as arrays alone."""
    bursts = [run(MAILS_CASE, design="hybrid", drop_share=share).bursts[0] for share in (0.01, 0.99)]
    assert bursts[0].returned_bytes >= 0.99 * bursts[0].eaten_bytes
    assert bursts[1].returned_bytes < 0.5 * bursts[1].eaten_bytes


@pytest.mark.jit
def test_a_synchronous_vcpu_stands_still_for_as_long_as_the_host() -> None:
    """The price of S5."""
    result = run(MAILS_CASE, design="sync", capacity=8)
    assert result.vcpu_wait_host_s_max is not None
    assert result.vcpu_wait_host_s_max == pytest.approx(STALL_S, abs=1.0)


@pytest.mark.jit
@pytest.mark.parametrize("design", ["scan", "notify"])
def test_false_ooms_need_no_answer_to_happen(design: str) -> None:
    """In the 512 MiB guest they happen under `none`, and under none of the three answers."""
    small = msgspec.structs.replace(RunConfig(**workload_defaults("small")), duration_s=8.0, design=design)
    false_ooms = {oom: run(small, oom=oom).false_ooms for oom in ("none", "wait", "cap", "swap")}
    assert false_ooms.pop("none")
    assert set(false_ooms.values()) == {0}, false_ooms


@pytest.mark.jit
@pytest.mark.parametrize("workload", ["web", "database", "churn", "day"])
def test_every_workload_runs_in_virtual_time(workload: str) -> None:
    """Nothing is wrong with it, it lasts as long as its stream, and the same seed gives the same bytes."""
    config = RunConfig(**(workload_defaults(workload) | {"ram_bytes": 256 * MIB, "duration_s": 5.0, "hold_s": 0.1}))
    results = [run(config, design="cursor") for _ in range(2)]
    assert results[0].outcome == "complete"
    assert results[0].stamp_errors == 0
    assert results[0].duration_s >= 5.0
    assert msgspec.json.encode(results[0]) == msgspec.json.encode(results[1])


@pytest.mark.jit
def test_reporting_that_is_switched_off_loses_nothing() -> None:
    """While it is off nothing is reported; back on, it makes up for all of it. A full ring ends the same way."""
    for fault in ("off@0.5:5", "ring-full@0.5:5"):
        result = run(MAILS_CASE, design="cursor", faults=(fault,), delay_s=0.1)
        (burst,) = result.bursts
        assert burst.returned_bytes >= 0.99 * burst.eaten_bytes
        assert burst.return_lag_s is not None
        assert burst.return_lag_s > 4.0
