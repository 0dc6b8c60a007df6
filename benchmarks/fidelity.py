"""How far the simulated machine is from what it stands for: our live machine, and a real Linux kernel.

The same settings and seed run several times simulated and live, by turns, and this machine is calibrated anew before
each turn: what a discard costs here was seen to drift by a fifth within the hour. The figure is the difference between
the medians of both; beside it is how far the live runs lie apart, which no simulation can be better than. By how much
the host's CPU time differs says how much of the rest is waiting for a processor. With a kernel of User-Mode Linux the
figure is the largest difference of what the host holds, at any full second after the first free, as a share of guest
RAM.
"""

import statistics
from collections.abc import Iterator

from benchmarks.rows import Row
from pagetide.jit import JIT_DISABLED
from pagetide.machine.calibration.calibrate import calibrate
from pagetide.machine.calibration.fidelity import compare_with_kernel, lags_s, mean_resident_bytes
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import Costs
from pagetide.machine.linux.balloon_host import OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import find_uml
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated.machine import SimulatedMachine

_REPEATS = 5
_CONFIGS = {
    "off": RunConfig(ram_bytes=1 << 30, design="off"),
    "scan": RunConfig(ram_bytes=1 << 30, delay_s=1.0),
    "scan, order 0": RunConfig(ram_bytes=1 << 30, delay_s=1.0, order=0),
    "scan-restart": RunConfig(ram_bytes=1 << 30, delay_s=1.0, design="scan-restart"),
    "cursor": RunConfig(ram_bytes=1 << 30, delay_s=1.0, design="cursor"),
    "notify": RunConfig(ram_bytes=1 << 30, design="notify"),
    "hybrid": RunConfig(ram_bytes=1 << 30, design="hybrid"),
    "notify-array": RunConfig(ram_bytes=1 << 30, design="notify-array"),
    "sync": RunConfig(ram_bytes=1 << 30, design="sync"),
    "shared": RunConfig(ram_bytes=1 << 30, design="shared", delay_s=1.0),
    "balloon": RunConfig(ram_bytes=1 << 30, design="balloon", delay_s=1.0),
    "scan, mmlock": RunConfig(ram_bytes=1 << 30, delay_s=1.0, faults=("mmlock",)),
    "scan, mmlock-split": RunConfig(ram_bytes=1 << 30, delay_s=1.0, faults=("mmlock-split",)),
    "shared, stop": RunConfig(ram_bytes=1 << 30, design="shared", delay_s=1.0, bursts=1, faults=("stop@0.9:5",)),
}
_KERNEL = BootConfig(bursts=1, hold_s=3.0)


def _against_live(name: str, config: RunConfig) -> list[Row]:
    simulated, live = [], []
    for _ in range(_REPEATS):
        simulated.append(SimulatedMachine(config, calibrate()).run(Nobody()))
        live.append(LiveMachine(config).run(Nobody()))
    broken = [run.outcome for run in (*simulated, *live) if run.outcome != "complete"]
    if broken:
        return [Row(f"simulated against live, {name}", None, "%", note=broken[0])]
    lags = lags_s([*simulated, *live])
    measured = (
        ("mean footprint", 5, [mean_resident_bytes(run) for run in (*simulated, *live)]),
        *([("return lag", 20, lags)] if lags else []),  # with `off` there is none
        ("host's CPU time", None, [run.host_cpu_s or 0.0 for run in (*simulated, *live)]),
    )
    return [
        _off(f"simulated against live, {name}: {what}", figures[:_REPEATS], figures[_REPEATS:], at_most)
        for what, at_most, figures in measured
    ]


def _off(name: str, simulated: list[float], live: list[float], at_most: float | None) -> Row:
    """By how many percent the simulated figure is off, and how far live ones lie apart."""
    middle = statistics.median(live)
    apart = 100 * (max(live) - min(live)) / middle
    off = 100 * abs(statistics.median(simulated) / middle - 1)
    return Row(name, off, "%", at_most=at_most, note=f"live runs lie {apart:.1f} % apart")


def _against_kernel(order: int, costs: Costs) -> Row:
    name = f"simulated against Linux (UML), order {order}: residency"
    config = BootConfig(bursts=_KERNEL.bursts, hold_s=_KERNEL.hold_s, order=order)
    try:
        parts = find_uml()
    except ConfigError as error:
        return Row(name, None, "%", note=str(error))
    boot = LinuxMachine(config, UserModeLinux(parts), OwnHost(config))
    found = compare_with_kernel(config, boot.run, costs, Nobody())
    return Row(name, 100 * found.off_share, "% of RAM", at_most=5)


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one: all of it takes a quarter of an hour."""
    assert not JIT_DISABLED, "what plain Python costs says nothing"
    for name, config in _CONFIGS.items():
        yield from _against_live(name, config)
    costs = calibrate()
    for order in (10, 9):
        yield _against_kernel(order, costs)
