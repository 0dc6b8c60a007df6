"""A trace replayed on real memory at its own speed, with stamps, against the same run simulated.

What is live is the median of some turns: the CPU time that reporting adds is a small difference of two large ones. On
4 KiB pages of the host, and on 2 MiB pages of a tmpfs, where a punch of 4 KiB has the kernel split one.
"""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.prize.replay import keeping, policies, ram_bytes
from benchmarks.rows import Row
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Machine, Nobody
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import MIB
from pagetide.workload.stream_file import load_stream

_OFF_PERCENT_MAX = 10
_REPEATS = 3


class _Measured(NamedTuple):
    """What came of `off` and of `pool` by turns, with an entry for each turn.

    Attributes:
        off_mib: what the host held on average with `off`.
        held_mib: the same with `pool`.
        refaulted_mib: what was returned and touched again, with `pool`.
        added_s: CPU seconds of guest and host with `pool` beyond those with `off` in the same turn.
    """

    off_mib: list[float]
    held_mib: list[float]
    refaulted_mib: list[float]
    added_s: list[float]


def run(path: Path, repeats: int = _REPEATS) -> Iterator[Row]:
    """Replay a trace with `off` and with `pool`, live some times by turns, and simulated; rows once there are some.

    Args:
        path: the trace, a stream in a Parquet file. Each live run takes as long as it did.
        repeats: how many turns are live.
    """
    stream = load_stream(path)
    pool = next(policy.settings for policy in policies() if policy.label == keeping(5))
    for backing, pages in (("memfd", "4 KiB"), ("hugetmpfs", "2 MiB")):
        common: dict[str, Any] = {
            "ram_bytes": ram_bytes(path.stem, stream),
            "vcpus": stream.vcpus,
            "stream": str(path),
            "backing": backing,
        }
        simulated = _measure(common, pool, repeats=1, live=False)
        live = _measure(common, pool, repeats=repeats, live=True)
        name = f"{path.stem}, live, host pages of {pages}"
        yield _told(f"{name}, off: held", live.off_mib, simulated.off_mib, "MiB")
        yield _off_by(f"{name}: held", live.held_mib, simulated.held_mib, "MiB")
        yield _told(f"{name}: refaulted", live.refaulted_mib, simulated.refaulted_mib, "MiB")
        yield _off_by(f"{name}: added CPU", live.added_s, simulated.added_s, "s")


def _measure(common: dict[str, Any], pool: dict[str, Any], *, repeats: int, live: bool) -> _Measured:
    measured = _Measured([], [], [], [])
    for _ in range(repeats):
        off, on = (_result(RunConfig(**common | settings), live=live) for settings in ({"design": "off"}, pool))
        assert off.mean_resident_bytes is not None
        assert on.mean_resident_bytes is not None
        assert on.refaulted_bytes is not None
        measured.off_mib.append(off.mean_resident_bytes / MIB)
        measured.held_mib.append(on.mean_resident_bytes / MIB)
        measured.refaulted_mib.append(on.refaulted_bytes / MIB)
        measured.added_s.append(_cpu_s(on) - _cpu_s(off))
    return measured


def _told(name: str, live: list[float], simulated: list[float], unit: str) -> Row:
    """The median of what was live."""
    return Row(name, statistics.median(live), unit, note=_note(live, simulated, unit))


def _off_by(name: str, live: list[float], simulated: list[float], unit: str) -> Row:
    """How far it is off what was simulated."""
    percent = 100 * abs(statistics.median(live) / simulated[0] - 1)
    return Row(f"{name}, off by", percent, "%", at_most=_OFF_PERCENT_MAX, note=_note(live, simulated, unit))


def _note(live: list[float], simulated: list[float], unit: str) -> str:
    median = f"{statistics.median(live):.4g} {unit} ({min(live):.4g} to {max(live):.4g})"
    return f"live {median}, simulated {simulated[0]:.4g} {unit}"


def _cpu_s(result: RunResult) -> float:
    assert result.guest_cpu_s is not None
    assert result.host_cpu_s is not None
    return result.guest_cpu_s + result.host_cpu_s


def _result(config: RunConfig, *, live: bool) -> RunResult:
    machine: Machine = LiveMachine(config) if live else SimulatedMachine(config, read_costs())
    result = machine.run(Nobody())
    assert result.outcome == "complete", result.outcome
    assert not result.stamp_errors
    return result
