"""What a worker of the grid does: runs one cell, and says what became of it, whatever that is."""

import datetime as dt
import functools
import signal
import time
from typing import Any

import msgspec

from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import COMPLETE, Record
from pagetide.machine.config import RunConfig
from pagetide.machine.costs import Costs
from pagetide.machine.observer import Machine
from pagetide.machine.result import RunResult, Sample
from pagetide.machine.versions import versions
from pagetide.machine.workloads import make_stream
from pagetide.processes import set_parent_death_signal
from pagetide.terminal.summary import problems
from pagetide.workload.stream import Stream

_STREAM_SETTINGS = (
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


def prepare_worker() -> None:
    """Make a process a worker: Ctrl-C is its parent's business, and it does not outlive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked until here by who started it
    set_parent_death_signal(signal.SIGKILL)


def run_job(job: Job) -> Record:
    """Run a cell; a run that fails is a record that says why."""
    started = dt.datetime.now(dt.UTC)
    start_s = time.perf_counter()
    result = None
    try:
        result = _machine(job).run(_Nobody())
        outcome = _outcome(result)
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


def stream_of(config: RunConfig) -> Stream:
    """The stream that these settings ask for; the last one again if it is the same, as it is for the next design."""
    return _make_stream(*(getattr(config, name) for name in _STREAM_SETTINGS))


@functools.lru_cache(maxsize=1)
def _make_stream(*values: Any) -> Stream:
    return make_stream(RunConfig(**dict(zip(_STREAM_SETTINGS, values, strict=True))))


def _machine(job: Job) -> Machine:
    if job.cell.machine == "live":
        from pagetide.machine.live.machine import LiveMachine

        return LiveMachine(job.cell.config)
    from pagetide.machine.simulated.machine import SimulatedMachine  # brings the compiler in

    assert job.costs is not None
    return SimulatedMachine(job.cell.config, job.costs, stream=stream_of(job.cell.config))


def _outcome(result: RunResult) -> str:
    """`complete` for a whole run with nothing wrong, otherwise what is."""
    if result.outcome != COMPLETE:
        return result.outcome
    return " ".join(problems(result)) or COMPLETE


class _Nobody:
    """Watches no run."""

    def stage(self, text: str) -> None: ...

    def sample(self, sample: Sample) -> None: ...

    def warning(self, text: str) -> None: ...
