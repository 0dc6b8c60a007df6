"""A trace replayed on real memory at its own speed, with stamps, against the same run simulated.

The costs of the simulated run are measured anew before each live one, for what a discard costs drifts by a fifth within
minutes. Compared is what the host holds, and the CPU time of what both machines count alike: the host's, and the
reporting worker's in the guest. The rest of a live guest's CPU time is Python that plays vCPUs (it wakes up as often as
a thousand times a second, and keeps a clock), where the simulated machine counts what an allocator costs: there the
two cannot be compared, so what refaults cost is compared by their number. On 4 KiB pages of the
host, and on 2 MiB pages of a tmpfs, of which parts are given back, too, or whole ones alone.
"""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.prize.replay import keeping, policies, ram_bytes
from benchmarks.rows import Row
from pagetide.machine.calibration.calibrate import calibrate
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Costs
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Machine, Nobody
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import MIB
from pagetide.workload.stream_file import load_stream

_HOSTS: dict[str, dict[str, Any]] = {
    "4 KiB": {"backing": "memfd"},
    "2 MiB, split": {"backing": "hugetmpfs", "split": True},
    "2 MiB, whole": {"backing": "hugetmpfs", "order": 9},
}
_OFF_PERCENT_MAX = 10
_REPEATS = 3


class _Measured(NamedTuple):
    """What came of one run with `pool`.

    Attributes:
        held_mib: what the host held on average.
        refaulted_mib: what was returned and touched again.
        host_s: CPU seconds of the host.
        reporting_s: CPU seconds of the guest's worker.
        rest_s: CPU seconds of the rest of the guest.
    """

    held_mib: float
    refaulted_mib: float
    host_s: float
    reporting_s: float
    rest_s: float


def run(path: Path, repeats: int = _REPEATS, costs: Callable[[], Costs] = calibrate) -> Iterator[Row]:
    """Replay a trace with `pool`, live some times, and simulated before each; rows once there are some.

    Args:
        path: the trace, a stream in a Parquet file. Each live run takes as long as it did.
        repeats: how many turns.
        costs: says before each turn what things cost now.
    """
    stream = load_stream(path)
    pool = next(policy.settings for policy in policies() if policy.label == keeping(5))
    for pages, settings in _HOSTS.items():
        common: dict[str, Any] = {
            "ram_bytes": ram_bytes(path.stem, stream),
            "vcpus": stream.vcpus,
            "stream": str(path),
        }
        config = RunConfig(**common | pool | settings)
        turns = [(_measured(SimulatedMachine(config, costs())), _measured(LiveMachine(config))) for _ in range(repeats)]
        simulated, live = (list(runs) for runs in zip(*turns, strict=True))
        name = f"{path.stem}, live, host pages of {pages}"
        for what, unit, figure, at_most in (
            ("held", "MiB", lambda run: run.held_mib, _OFF_PERCENT_MAX),
            ("refaulted", "MiB", lambda run: run.refaulted_mib, _OFF_PERCENT_MAX),
            ("CPU of host and worker", "s", lambda run: run.host_s + run.reporting_s, _OFF_PERCENT_MAX),
            ("CPU of the host", "s", lambda run: run.host_s, None),
            ("CPU of the guest's worker", "s", lambda run: run.reporting_s, None),
            ("CPU of the rest of the guest", "s", lambda run: run.rest_s, None),
        ):
            yield _off_by(f"{name}: {what}", [*map(figure, live)], [*map(figure, simulated)], unit, at_most)


def _off_by(name: str, live: list[float], simulated: list[float], unit: str, at_most: float | None) -> Row:
    """How far what was simulated is off what was live: medians, and within which bounds each was."""
    middle = statistics.median(live)
    percent = 100 * abs(statistics.median(simulated) / middle - 1) if middle else None
    note = f"live {_told(live, unit)}, simulated {_told(simulated, unit)}"
    return Row(f"{name}, off by", percent, "%", at_most=at_most, note=note)


def _told(figures: list[float], unit: str) -> str:
    return f"{statistics.median(figures):.4g} {unit} ({min(figures):.4g} to {max(figures):.4g})"


def _measured(machine: Machine) -> _Measured:
    result: RunResult = machine.run(Nobody())
    assert result.outcome == "complete", result.outcome
    assert not result.stamp_errors
    assert result.mean_resident_bytes is not None
    assert result.refaulted_bytes is not None
    assert result.guest_cpu_s is not None
    assert result.host_cpu_s is not None
    assert result.reporting_cpu_s is not None
    return _Measured(
        result.mean_resident_bytes / MIB,
        result.refaulted_bytes / MIB,
        result.host_cpu_s,
        result.reporting_cpu_s,
        result.guest_cpu_s - result.reporting_cpu_s,
    )
