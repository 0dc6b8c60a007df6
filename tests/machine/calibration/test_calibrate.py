"""Calibration on this machine, and what it is for: simulated runs that say what live ones do."""

from collections.abc import Iterator

import msgspec
import pytest

from pagetide.machine.calibration.calibrate import calibrate
from pagetide.machine.calibration.fidelity import Difference, compare
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Costs
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.simulated.machine import SimulatedMachine
from tests.machine.watcher import Watcher

pytestmark = [pytest.mark.jit, pytest.mark.alone]

MIB = 1 << 20
CONFIG = RunConfig(ram_bytes=256 * MIB, bursts=2, hold_s=1.0, delay_s=1.0)
ATTEMPTS = 3
"""A live run beside other work on the machine may take longer than it should; the simulated one never does."""


@pytest.fixture(scope="module")
def costs() -> Costs:
    """What things cost here, now."""
    told: list[str] = []
    measured = calibrate(told.append)
    assert len(told) >= 3
    return measured


def test_what_is_measured_is_plausible(costs: Costs) -> None:
    """The costs pass their own checks, and are in the order in which they must be."""
    costs.check_ranges()
    memfd = costs.backings["memfd"]
    assert 1 < costs.order0.ns < costs.block.ns * 10 < 10_000
    assert costs.stamp.ns < memfd.fault.ns
    assert 100 < memfd.fault.ns < 100_000
    assert 0 < costs.walk.ns < 1000
    prices_ns = [memfd.punch.ns, *(piece.cost.ns for piece in memfd.pieces)]
    assert prices_ns[1:] == sorted(prices_ns[1:])
    assert costs.report.ns > 1000
    assert costs.element.ns > 1000
    taking = costs.of_taking()
    assert taking.look.ns < 100
    assert taking.frame.ns < 1000
    assert 100 < taking.batch.ns < 100_000


def differences(design: str) -> Iterator[Difference]:
    """The same run simulated and live, as often as is tried; each time with what things cost here at that time.

    Costs drift by a fifth within minutes.
    """
    config = msgspec.structs.replace(CONFIG, design=design)
    for _ in range(ATTEMPTS):
        simulated = SimulatedMachine(config, calibrate()).run(Watcher())
        live = LiveMachine(config).run(Watcher())
        assert live.outcome == simulated.outcome == "complete"
        assert [burst.eaten_bytes for burst in live.bursts] == [burst.eaten_bytes for burst in simulated.bursts]
        yield compare(simulated, live)


def test_other_runs_are_told_apart(costs: Costs) -> None:
    """The comparison can fail: with another delay the lag is off, without reporting the footprint."""
    scan, slow, off = (
        SimulatedMachine(msgspec.structs.replace(CONFIG, **changes), costs).run(Watcher())
        for changes in ({}, {"delay_s": 1.5}, {"design": "off"})
    )
    lag = compare(slow, scan).lag
    assert lag is not None
    assert abs(lag) > 0.2
    assert compare(off, scan).footprint > 0.05


@pytest.mark.parametrize("design", ["scan", "scan-restart", "cursor", "shared"])
def test_simulated_runs_say_what_live_ones_do(design: str) -> None:
    """On the same seed the mean footprint is within 5 % of a live run's, and the return lag within 20 %."""
    off = []
    for footprint, lag in differences(design):
        if abs(footprint) <= 0.05 and lag is not None and abs(lag) <= 0.2:
            return
        off.append((footprint, lag))
    pytest.fail(f"footprint and lag were off by {off}")


@pytest.mark.parametrize("design", ["off", "notify", "notify-array", "hybrid", "balloon"])
def test_simulated_footprints_are_live_ones(design: str) -> None:
    """Where memory is back within some samples, or some of it never, the mean footprint is within 5 % all the same."""
    off = []
    for footprint, _ in differences(design):
        if abs(footprint) <= 0.05:
            return
        off.append(footprint)
    pytest.fail(f"the footprint was off by {off}")
