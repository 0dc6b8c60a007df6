"""`shared` and `balloon` in virtual time, and what goes wrong on the host's side beside them."""

from typing import Any

import msgspec
import numpy as np
import pytest

from pagetide.machine.balloon_policy import SLACK_PAGES, reserve_pages
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Cost, Costs, read_costs
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import PAGE_SIZE_BYTES
from tests.machine.watcher import Watcher

pytestmark = pytest.mark.jit  # its kernels are tested both ways elsewhere

MIB = 1 << 20
RAM_BYTES = 128 * MIB
SHARED = RunConfig(design="shared", ram_bytes=RAM_BYTES, bursts=2, hold_s=1.0, delay_s=0.1, capacity=4)
BALLOON = RunConfig(design="balloon", ram_bytes=RAM_BYTES, bursts=2, hold_s=1.0, delay_s=0.1)
RESERVE_BYTES = (reserve_pages(RAM_BYTES // PAGE_SIZE_BYTES) + SLACK_PAGES) * PAGE_SIZE_BYTES


def run(config: RunConfig, costs: Costs | None = None, **changes: Any) -> RunResult:
    """A simulated run that has to be complete and right, with these settings changed."""
    config = msgspec.structs.replace(config, **changes)
    config.check()
    result = SimulatedMachine(config, costs or read_costs()).run(Watcher())
    assert result.outcome == "complete"
    assert result.stamp_errors == 0
    assert result.checked_bytes == result.verified_bytes
    return result


def test_the_host_takes_what_is_free_and_no_vcpu_waits() -> None:
    """All of the guest's free frames are taken, a few at a time, and used again after that."""
    result = run(SHARED)
    assert result.samples.reported_bytes[-1] == RAM_BYTES
    assert result.isolated_blocks_max == 4
    assert result.kicks == result.vcpu_waits_host == result.false_ooms == 0
    assert result.refaulted_bytes
    assert result.host_cpu_s
    for burst in result.bursts:
        assert burst.return_lag_s is not None
        assert burst.return_lag_s < 0.3


def test_a_pass_is_due_its_delay_after_the_one_before() -> None:
    """The lag is at most the delay and a pass: it grows with the delay, and with nothing else."""
    lags_s = [run(SHARED, bursts=1, hold_s=0.5, delay_s=delay_s).bursts[0].return_lag_s for delay_s in (0.01, 20.0)]
    assert lags_s[0] is not None
    assert lags_s[1] is not None
    assert lags_s[0] < 0.2
    assert 15.0 < lags_s[1] < 20.2


def test_taking_costs_what_was_measured() -> None:
    """The host's time grows by what looking at a frame costs more, times the frames that all passes look at."""
    costs = read_costs()
    taking = costs.of_taking()
    look = msgspec.structs.replace(taking.look, ns=taking.look.ns + 1000.0, high_ns=1e9)
    slower = msgspec.structs.replace(costs, taking=msgspec.structs.replace(taking, look=look))
    results = [run(SHARED, given, bursts=1) for given in (costs, slower)]
    more_s = (results[1].host_cpu_s or 0.0) - (results[0].host_cpu_s or 0.0)
    passes = results[0].duration_s / 0.1
    assert more_s == pytest.approx(RAM_BYTES // (2 * MIB) * 1e-6 * passes, rel=0.25)


@pytest.mark.parametrize("waits", [True, False])
def test_frames_that_are_taken_make_an_allocation_wait_or_fail(waits: bool) -> None:
    """With all that is free TAKING by a slow host it waits for the batch, or fails falsely and is counted."""
    result = run(
        SHARED, ram_bytes=32 * MIB, eat_share=0.85, hold_s=0.0, delay_s=0.001, capacity=16, bursts=20,
        faults=("slow@0:1000:500",), oom="wait" if waits else "none",
    )  # fmt: skip
    assert (result.false_ooms == 0) == waits
    assert (result.vcpu_waits_host != 0) == waits


@pytest.mark.parametrize("config", [SHARED, BALLOON], ids=["shared", "balloon"])
@pytest.mark.parametrize("fault", ["stop@0.9:5", "off@0.9:5", "slow@0.9:5:1000"])
def test_faults_delay_and_lose_nothing(config: RunConfig, fault: str) -> None:
    """Whether the host stops or is slow, or the design is off: memory is back once that is over, and not before."""
    result = run(config, bursts=1, hold_s=1.5, faults=(fault,))
    (burst,) = result.bursts
    t_s, resident = np.array(result.samples.t_s), np.array(result.samples.host_resident_bytes)
    during = (t_s > burst.free_end_s) & (t_s < 5.8)
    kept_bytes = 0 if config is SHARED else RESERVE_BYTES
    assert during.any()
    assert resident[during].min() > 0.5 * burst.eaten_bytes
    assert resident[-1] < 0.03 * RAM_BYTES + kept_bytes
    assert result.false_ooms == result.vcpu_waits_host == 0


@pytest.mark.parametrize("vcpus", [1, 4])
def test_nobody_works_more_than_the_processors_can(vcpus: int) -> None:
    """More vCPUs than processors take longer, and no more CPU time."""
    costs = msgspec.structs.replace(read_costs(), cpus=1)
    config = RunConfig(ram_bytes=RAM_BYTES, vcpus=vcpus, design="off", bursts=1, hold_s=0.0, rest_s=1e-3)
    result = run(config, costs)
    assert result.guest_cpu_s is not None
    assert 0.9 * result.duration_s < result.guest_cpu_s <= result.duration_s


def test_a_balloon_returns_all_but_the_reserve() -> None:
    """Through the real driver, ring and device; the guest's next burst takes pages out of it again."""
    result = run(BALLOON)
    for burst in result.bursts:
        assert burst.eaten_bytes - RESERVE_BYTES <= burst.returned_bytes <= burst.eaten_bytes
    assert result.kicks
    assert result.reports
    assert result.reported_bytes == result.verified_bytes
    assert result.refaulted_bytes
    assert result.false_ooms == result.vcpu_waits_host == 0


def test_what_a_balloon_reports_is_one_buffer() -> None:
    """Its 256 page numbers take the guest no 256 times what a block's descriptor does."""
    spent_s, reports = [], 0
    for report_block_ns in (0.0, 1e5):
        cost = Cost(ns=report_block_ns, low_ns=report_block_ns, high_ns=report_block_ns)
        result = run(BALLOON, msgspec.structs.replace(read_costs(), report_block=cost))
        reports = result.reports or 0
        assert reports > 100
        assert result.guest_cpu_s is not None
        spent_s.append(result.guest_cpu_s)
    # Timing moves the host's target, and so the number of reports, a little.
    assert 0.8 * reports * 1e-4 < spent_s[1] - spent_s[0] < 1.5 * reports * 1e-4


def test_a_balloon_that_cannot_deflate_fails_falsely() -> None:
    """Without DEFLATE_ON_OOM a burst meets a full balloon."""
    result = run(BALLOON, oom="none", hold_s=0.1)
    assert result.false_ooms


def test_a_stopped_host_does_not_hear_that_the_guest_asks() -> None:
    """The guest's worker waits for the configuration meanwhile; its vCPUs deflate and go on."""
    result = run(BALLOON, bursts=1, faults=("stop@0:30",))
    (burst,) = result.bursts
    assert burst.free_end_s < 5.0
    assert result.vcpu_waits_host == result.false_ooms == 0


def test_a_report_holds_no_more_blocks_than_the_ring_has_entries() -> None:
    """With `ring=4` batches are of four blocks and go as chains; all comes back in as many more reports."""
    config = RunConfig(ram_bytes=512 * MIB, bursts=1, hold_s=0.5, delay_s=0.1)
    small, large = run(config, faults=("ring=4",)), run(config)
    assert small.isolated_blocks_max == 4
    assert large.isolated_blocks_max is not None
    assert large.isolated_blocks_max > 8
    assert small.reported_bytes == pytest.approx(large.reported_bytes, rel=0.05)
    assert small.reports is not None
    assert large.reports is not None
    assert small.reports > 2 * large.reports
    for burst in small.bursts:
        assert burst.returned_bytes >= 0.97 * burst.eaten_bytes


def test_who_holds_the_mm_lock_takes_a_processor_and_nothing_else() -> None:
    """fallocate(2) takes no mm lock: discarding costs what it did, one VMA or two; only the vCPUs share processors."""
    config = RunConfig(ram_bytes=RAM_BYTES, bursts=2, hold_s=0.5, delay_s=0.1, vcpus=2)
    costs = msgspec.structs.replace(read_costs(), cpus=2)
    plain, one, two = (run(config, costs, faults=faults) for faults in ((), ("mmlock",), ("mmlock-split",)))
    assert one.host_cpu_s == two.host_cpu_s == pytest.approx(plain.host_cpu_s, rel=0.02)
    ate_s = [[burst.free_start_s - burst.eat_start_s - 0.5 for burst in result.bursts] for result in (plain, one, two)]
    assert ate_s[1] == ate_s[2] == pytest.approx([1.5 * each_s for each_s in ate_s[0]], rel=0.02)
    assert one.samples == two.samples
