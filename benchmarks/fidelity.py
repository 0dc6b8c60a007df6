"""How far the simulated machine is from what it stands for: our live machine, and a real Linux kernel.

This machine is calibrated first. Then the same settings and seed run live and simulated, by turns; the figure is the
difference, simulated against live. With a kernel of User-Mode Linux the figure is the largest difference of what the
host holds, at any full second after the first free, as a share of guest RAM.
"""

import statistics

from benchmarks.rows import Row
from pagetide.jit import JIT_DISABLED
from pagetide.machine.balloon_host import OwnHost
from pagetide.machine.boot_config import BootConfig
from pagetide.machine.calibrate import calibrate
from pagetide.machine.compare import compare, compare_with_kernel
from pagetide.machine.config import ConfigError, RunConfig
from pagetide.machine.costs import Costs
from pagetide.machine.linux_machine import LinuxMachine
from pagetide.machine.live import LiveMachine
from pagetide.machine.packages import find_uml
from pagetide.machine.result import Sample
from pagetide.machine.simulated import SimulatedMachine
from pagetide.machine.uml_guest import UserModeLinux

_REPEATS = 3
_CONFIGS = {
    "scan": RunConfig(ram_bytes=1 << 30, delay_s=1.0),
    "scan, order 0": RunConfig(ram_bytes=1 << 30, delay_s=1.0, order=0),
    "cursor": RunConfig(ram_bytes=1 << 30, delay_s=1.0, design="cursor"),
    "notify": RunConfig(ram_bytes=1 << 30, design="notify"),
}
_KERNEL = BootConfig(bursts=1, hold_s=3.0)


class _Nobody:
    """Watches nothing."""

    def stage(self, text: str) -> None:
        """Something new begins."""

    def sample(self, sample: Sample) -> None:
        """The state of things."""

    def warning(self, text: str) -> None:
        """Something is not as it should be."""


def _against_live(name: str, config: RunConfig, costs: Costs) -> list[Row]:
    simulated = SimulatedMachine(config, costs).run(_Nobody())
    found = [compare(simulated, LiveMachine(config).run(_Nobody())) for _ in range(_REPEATS)]
    footprint = statistics.median(abs(each.footprint) for each in found)
    lags = [abs(each.lag) for each in found if each.lag is not None]
    lag = statistics.median(lags) if lags else None
    return [
        Row(f"simulated against live, {name}: mean footprint", 100 * footprint, "%", at_most=5),
        Row(f"simulated against live, {name}: return lag", None if lag is None else 100 * lag, "%", at_most=20),
    ]


def _against_kernel(order: int, costs: Costs) -> Row:
    name = f"simulated against Linux (UML), order {order}: residency"
    config = BootConfig(bursts=_KERNEL.bursts, hold_s=_KERNEL.hold_s, order=order)
    try:
        parts = find_uml()
    except ConfigError as error:
        return Row(name, None, "%", note=str(error))
    boot = LinuxMachine(config, UserModeLinux(parts), OwnHost(config))
    found = compare_with_kernel(config, boot.run, costs, _Nobody())
    return Row(name, 100 * found.off_share, "% of RAM", at_most=5)


def run() -> list[Row]:
    """Measure; one row a figure."""
    assert not JIT_DISABLED, "what plain Python costs says nothing"
    costs = calibrate()
    rows = [row for name, config in _CONFIGS.items() for row in _against_live(name, config, costs)]
    return rows + [_against_kernel(order, costs) for order in (10, 9)]
