"""What a simulated machine costs: operations a second on one core, all of a run included.

A run of bursts in a 4 GiB guest, from settings to figures: making the workload, the zone, the samples and the result
are in it. `pages` counts each page that an operation allocates, stamps, checks or frees; `blocks` the operations, most
of them of one page. A day is a whole command, by the clock: start-up and the picture are in it.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.rows import Row
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import read_costs
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.units import PAGE_SIZE_BYTES

_REPEATS = 5
_CONFIG = RunConfig(ram_bytes=4 << 30, bursts=4)
_DAY = ("run", "--machine", "simulated", "--workload", "day", "--ram", "16GiB", "--design")
_LARGE = RunConfig(ram_bytes=1 << 40, bursts=1, eat_share=0.002)


def _run(config: RunConfig) -> tuple[float, int, int]:
    """Seconds, operations and pages of one run."""
    machine = SimulatedMachine(config, read_costs())
    start_s = time.process_time()
    result = machine.run(Nobody())
    spent_s = time.process_time() - start_s
    assert result.outcome == "complete"
    pages = 2 * sum(burst.eaten_bytes for burst in result.bursts) // PAGE_SIZE_BYTES
    return spent_s, machine.operations, pages


def _day_s(design: str) -> float:
    """A mixed day of a 16 GiB guest, from the shell's point of view."""
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "pagetide.cli", *_DAY, design]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start_s


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    for design in ("scan", "cursor", "notify", "shared"):
        config = RunConfig(**{name: getattr(_CONFIG, name) for name in _CONFIG.__struct_fields__} | {"design": design})
        _run(config)
        runs = [_run(config) for _ in range(_REPEATS)]
        blocks, pages = (statistics.median(run[which] / run[0] for run in runs) / 1e6 for which in (1, 2))
        yield Row(f"simulated, {design}, blocks", blocks, "M/s", at_least=5)
        yield Row(f"simulated, {design}, pages", pages, "M/s")
    for design in ("scan", "sync", "balloon"):
        day_s = min(_day_s(design) for _ in range(3))
        yield Row(f"simulated, a day of 16 GiB, {design}", day_s, "s", at_most=10)
    _run(_LARGE)
    yield Row("simulated, 1 TiB guest that uses 2 GiB of it", _run(_LARGE)[0], "s")
