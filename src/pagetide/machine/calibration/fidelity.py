"""Two runs beside each other: figures that a simulated run must share with the run that it stands for."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.machine.costs import Costs
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.observer import Observer
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.workload.file import file

_PASS_MIN_BYTES = 16 << 20  # what comes back at least in a pass that is worth the name


class Difference(NamedTuple):
    """How far a simulated run is off, as a share of the live one's figure.

    Attributes:
        footprint: of the mean over time of what the host held.
        lag: of the mean over the bursts of how long memory took to come back; None where one of them never was.
    """

    footprint: float
    lag: float | None


def compare(simulated: RunResult, live: RunResult) -> Difference:
    """Compare two runs with the same settings."""
    lags_s = [_mean_lag_s(result) for result in (simulated, live)]
    lag = None if lags_s[0] is None or lags_s[1] is None else lags_s[0] / lags_s[1] - 1
    return Difference(mean_resident_bytes(simulated) / mean_resident_bytes(live) - 1, lag)


def mean_resident_bytes(result: RunResult) -> float:
    """Mean over time of what the host held."""
    t_s = np.array(result.samples.t_s)
    return float(np.trapezoid(result.samples.host_resident_bytes, t_s) / (t_s[-1] - t_s[0]))


def _mean_lag_s(result: RunResult) -> float | None:
    lags_s = [burst.return_lag_s for burst in result.bursts]
    found_s = [lag_s for lag_s in lags_s if lag_s is not None]
    return sum(found_s) / len(found_s) if found_s and len(found_s) == len(lags_s) else None


def lags_s(results: Sequence[RunResult]) -> list[float]:
    """How long memory took to come back, one figure a run: the mean over the bursts, where each of them came back.

    Where one did not, in any of the runs, it is what the median byte took, in all of them.
    """
    means_s = [_mean_lag_s(result) for result in results]
    medians_s = [result.return_lag_s_p50 for result in results]
    return [value for value in (medians_s if None in means_s else means_s) if value is not None]


def _resident_from_first_pass(result: RunResult, seconds: int) -> tuple[npt.NDArray[np.int64], float]:
    """What the host held when the first free began, and 0.5, 1.5, … s after memory began to come back; when it did.

    After the run's end it is what was held then. At whole seconds a pass may be under way, for passes are whole seconds
    apart. Where nothing came back, seconds count from the free.
    """
    t_s, resident_bytes = np.array(result.samples.t_s), np.array(result.samples.host_resident_bytes, np.int64)
    free_start_s = result.bursts[0].free_start_s
    before = int(np.searchsorted(t_s, free_start_s, "right")) - 1
    fell = np.flatnonzero(resident_bytes[before:] < resident_bytes[before] - _PASS_MIN_BYTES)
    begun_s = float(t_s[before + fell[0]]) if len(fell) else free_start_s
    at = np.searchsorted(t_s, begun_s + 0.5 + np.arange(seconds), "right") - 1
    return resident_bytes[np.concatenate(([before], at))], begun_s - free_start_s


class KernelComparison(NamedTuple):
    """A real kernel's run and the simulated one of the same schedule.

    Attributes:
        real: what the host held before memory came back, and each second while it did, in bytes.
        simulated: the same of the simulated run.
        waited_s: how long the real guest's first pass came after its first free.
        off_share: the largest difference between the two, as a share of guest RAM.
    """

    real: npt.NDArray[np.int64]
    simulated: npt.NDArray[np.int64]
    waited_s: float
    off_share: float


def compare_with_kernel(
    config: BootConfig, boot: Callable[[Observer], RunResult], costs: Costs, observer: Observer
) -> KernelComparison:
    """Boot a kernel, let it fill and free once, and simulate the same: order, delay, capacity and pace, and when.

    When passes are due goes by when the file was begun and removed, so it is written for as long as the kernel takes.
    The first one may come earlier, for a free of the kernel's own may have asked for it; so both are compared from
    their first pass on. The simulated guest keeps for good what the real one used before it began, which is its kernel.

    Args:
        config: the real guest; only its first burst is compared.
        boot: boots it, and runs it to its end.
        costs: for the simulated one.
        observer: who watches both.
    """
    real = boot(observer)
    assert real.bursts, f"the real guest freed nothing: {real.outcome}"
    burst, samples = real.bursts[0], real.samples
    kept_bytes = samples.guest_used_bytes[int(np.searchsorted(samples.t_s, burst.eat_start_s, "right")) - 1]
    seconds = int(samples.t_s[-1] - burst.free_start_s)
    write_s = max(0.0, burst.free_start_s - burst.eat_start_s - config.hold_s)
    stream = file(
        kept_bytes=kept_bytes, file_bytes=config.fill_bytes, write_s=write_s, hold_s=config.hold_s, rest_s=1.0
    )
    settings = msgspec.structs.replace(config.run_config(), order=real.config.order, bursts=1)
    simulated = SimulatedMachine(settings, costs, work=stream).run(observer)
    (real_bytes, waited_s), (simulated_bytes, _) = (
        _resident_from_first_pass(result, seconds) for result in (real, simulated)
    )
    off_bytes = int(np.abs(real_bytes - simulated_bytes).max())
    return KernelComparison(real_bytes, simulated_bytes, waited_s, off_bytes / config.ram_bytes)
