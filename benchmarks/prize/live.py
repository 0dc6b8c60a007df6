"""A trace replayed on real memory at its own speed, with stamps, against the same run simulated.

On 4 KiB pages of the host, and on 2 MiB pages of a tmpfs, where a punch of 4 KiB has the kernel split one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.prize.replay import keeping, policies, ram_bytes
from benchmarks.rows import Row
from benchmarks.simulated import Nobody
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Machine
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import MIB
from pagetide.workload.stream_file import load_stream

_OFF_PERCENT_MAX = 10


def run(path: Path, keep_s: float = 5.0) -> Iterator[Row]:
    """Replay a trace with `off` and with `pool`, live and simulated; one row a figure, as soon as there is one.

    Args:
        path: the trace, a stream in a Parquet file. Each live run takes as long as it did.
        keep_s: the knob of `pool`.
    """
    stream = load_stream(path)
    pool = next(policy.settings for policy in policies() if policy.label == keeping(keep_s))
    for backing, pages in (("memfd", "4 KiB"), ("hugetmpfs", "2 MiB")):
        common: dict[str, Any] = {
            "ram_bytes": ram_bytes(path.stem, stream),
            "vcpus": stream.vcpus,
            "stream": str(path),
            "backing": backing,
        }
        held, added = [], []
        for live in (False, True):
            off, on = (_result(RunConfig(**common | settings), live=live) for settings in ({"design": "off"}, pool))
            assert on.mean_resident_bytes is not None
            held.append(on.mean_resident_bytes)
            added.append(_cpu_s(on) - _cpu_s(off))
        name = f"{path.stem}, live, host pages of {pages}"
        note = f"{held[1] / MIB:.1f} MiB live, {held[0] / MIB:.1f} MiB simulated"
        yield Row(f"{name}: held, off by", _percent(*held), "%", at_most=_OFF_PERCENT_MAX, note=note)
        note = f"{added[1]:.3f} s live, {added[0]:.3f} s simulated"
        yield Row(f"{name}: added CPU, off by", _percent(*added), "%", at_most=_OFF_PERCENT_MAX, note=note)


def _percent(simulated: float, live: float) -> float:
    return 100 * abs(live / simulated - 1)


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
