"""What a worker of the grid does: runs one cell, and says what became of it, whatever that is."""

import datetime as dt
import functools
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import COMPLETE, Record
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Costs
from pagetide.machine.observer import Machine, Nobody
from pagetide.machine.result import RunResult
from pagetide.machine.versions import versions
from pagetide.machine.workloads import make_work
from pagetide.terminal.summary import problems
from pagetide.workload.kept import KeptWork
from pagetide.workload.stream import Work

_WORK_SETTINGS = (
    "workload", "ram_bytes", "bursts", "eat_share", "hold_s", "rest_s", "duration_s", "rate_per_s", "mix", "stream",
    "vcpus", "seed",
)  # fmt: skip


class Job(msgspec.Struct, frozen=True):
    """A cell to be run.

    Attributes:
        cell: which.
        costs: what things cost; None for a live run.
        costs_name: their name and digest; empty for a live run.
    """

    cell: Cell
    costs: Costs | None = None
    costs_name: str = ""


def run_job(job: Job) -> Record:
    """Run a cell; a run that fails is a record that says why."""
    started = dt.datetime.now(dt.UTC)
    start_s = time.perf_counter()
    result = None
    try:
        result = _machine(job).run(Nobody())
        outcome = _outcome(result)
    except MemoryError:
        outcome = _ran_out(job)
    except Exception as error:  # whatever broke, it is this run's outcome
        outcome = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Record(
        cell=job.cell,
        outcome=" ".join(outcome.split()),
        result=result,
        failed=outcome != COMPLETE,
        started=started.isoformat(timespec="milliseconds"),
        took_s=time.perf_counter() - start_s,
        versions=versions(),
        costs=job.costs_name,
    )


def _ran_out(job: Job) -> str:
    """What is said of a run for which there was not enough memory."""
    from pagetide.machine.simulated.memory_need import ran_out

    return ran_out(job.cell.config) if job.cell.machine == "simulated" else "there is not enough memory"


def lost_job(job: Job, outcome: str) -> Record:
    """The record of a cell whose worker was lost, each time that it was tried."""
    return Record(
        cell=job.cell,
        outcome=outcome,
        result=None,
        failed=True,
        started=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        took_s=0.0,
        versions=versions(),
        costs=job.costs_name,
    )


def by_work(cells: Iterable[Cell]) -> list[Cell]:
    """The cells in the order in which workers have least to make: those of the same work one after the other."""
    alike: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_settings_of_work(cell.config), []).append(cell)
    return [cell for group in alike.values() for cell in group]


def work_of(config: RunConfig) -> Work:
    """What the guest does with these settings; the last again if it is the same, as it is for the next design."""
    return _make_work(*_settings_of_work(config))


def _settings_of_work(config: RunConfig) -> tuple[Any, ...]:
    return tuple(getattr(config, name) for name in _WORK_SETTINGS)


@functools.lru_cache(maxsize=1)
def _make_work(*values: Any) -> Work:
    return KeptWork(make_work(RunConfig(**dict(zip(_WORK_SETTINGS, values, strict=True)))))


def _machine(job: Job) -> Machine:
    if job.cell.machine == "live":
        from pagetide.machine.live.machine import LiveMachine

        return LiveMachine(job.cell.config)
    from pagetide.machine.simulated.machine import SimulatedMachine  # brings the compiler in

    assert job.costs is not None
    return SimulatedMachine(job.cell.config, job.costs, work=work_of(job.cell.config))


def _outcome(result: RunResult) -> str:
    """`complete` for a whole run with nothing wrong, otherwise what is."""
    if result.outcome != COMPLETE:
        return result.outcome
    return " ".join(problems(result)) or COMPLETE
