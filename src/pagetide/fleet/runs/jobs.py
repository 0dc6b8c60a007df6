"""The jobs of a fleet: a cluster of its VMs under one setting each, and what a worker makes of it."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import HELD, REFAULTED, RETURNED, STEPS
from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.hosts.answering.answer import Answer
from pagetide.fleet.hosts.cluster import Placed, Question, cluster
from pagetide.fleet.usage.canonical import Grid, Source, Usage
from pagetide.fleet.usage.oddities import Oddities
from pagetide.workers.pools import Pool

CLUSTER_VMS = 512
"""So many VMs share a cluster of hosts: the size of a cluster that people run."""

_CELLS_MAX = 5 << 20
"""VMs times steps of a cluster at the most; a month of 512 VMs takes some 150 MiB of a worker."""

DRAWN = (STEPS, HELD, RETURNED, REFAULTED)
"""The figures that are summed up over the VMs of each draw."""


class Job(NamedTuple):
    """A cluster under a setting.

    Attributes:
        number: of the job.
        cluster: the number of the cluster.
        first: its first VM.
        end: the one after its last.
        setting: the number of the setting.
        mixture: how guests respond under it.
        question: what is asked.
        source: the usage of its VMs and no others; None once it is done.
    """

    number: int
    cluster: int
    first: int
    end: int
    setting: int
    mixture: Mixture
    question: Question
    source: Source | None


class Done(NamedTuple):
    """What became of a job.

    Attributes:
        job: which, without its usage.
        names: of its VMs.
        figures: float64 [vm, FIGURES], as `Held` has them.
        reserved_bytes: float64 [vm], the most memory that each has.
        parts: int64 [vm], which part of the mixture each has.
        by_step: float64 [step], held for all of them.
        drawn: float64 [draw, part, DRAWN], the sums over the VMs as they are, and then of each draw, by the part of the
            mixture that they have.
        placed: as `Cluster` has it, as are the others.
        answers: likewise.
        heat: likewise; only of the first cluster.
        problem: why there is nothing of all that; empty if there is.
    """

    job: Job
    names: tuple[str, ...] = ()
    figures: npt.NDArray[np.float64] = np.zeros((0, 0))
    reserved_bytes: npt.NDArray[np.float64] = np.zeros(0)
    parts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    by_step: npt.NDArray[np.float64] = np.zeros(0)
    drawn: npt.NDArray[np.float64] = np.zeros((0, 0, 0))
    placed: tuple[Placed, ...] = ()
    answers: Mapping[str, Answer] = MappingProxyType({})
    heat: Mapping[str, npt.NDArray[np.float32]] = MappingProxyType({})
    problem: str = ""


class Divisible(Source, Protocol):
    """A source that can be sent to workers in parts."""

    @property
    def digest(self) -> str:
        """Tells it from any other usage, whatever that is called."""

    def part(self, first: int, end: int) -> Source:
        """The VMs from `first` up to `end`, as a source that is light to send to processes of this machine."""


class Carried(NamedTuple):
    """A source that has all of its usage with it, for other machines."""

    usage: Usage

    @property
    def grid(self) -> Grid:
        """The grid of all its VMs."""
        return self.usage.grid

    @property
    def vms(self) -> tuple[str, ...]:
        """The names of its VMs."""
        return self.usage.vms

    @property
    def about(self) -> str:
        """What it is."""
        return f"{len(self.usage.vms)} VMs"

    def read(self, first: int, end: int) -> tuple[Usage, Oddities]:
        """The VMs from `first` up to `end`."""
        one, here = self.usage, slice(first, end)
        found = Usage(one.grid, one.vms[here], one.capacity_bytes[here], one.used_bytes[here], one.valid[here])
        return found, Oddities()


def cluster_vms(grid: Grid) -> int:
    """How many VMs share a cluster at the most: fewer over a long time, so that a job's arrays have a bound."""
    return max(1, min(CLUSTER_VMS, _CELLS_MAX // grid.steps))


def cut(source: Divisible, mixtures: Sequence[Mixture], question: Question) -> Iterator[Job]:
    """All jobs of a fleet: cluster by cluster, each under every setting."""
    vms = len(source.vms)
    size = cluster_vms(source.grid)
    number = 0
    for cluster_number, first in enumerate(range(0, vms, size)):
        end = min(first + size, vms)
        part = source.part(first, end)
        for setting, mixture in enumerate(mixtures):
            yield Job(number, cluster_number, first, end, setting, mixture, question, part)
            number += 1


def run_job(job: Job) -> Done:
    """Follow a job's VMs, and place them on hosts; what went wrong instead is its `problem`, and not a worker lost."""
    try:
        return _done(job)
    except Exception as error:
        why = " ".join(str(error).split())
        return lost(job, f"{type(error).__name__}: {why}" if why else type(error).__name__)


def _done(job: Job) -> Done:
    assert job.source is not None
    usage, _ = job.source.read(0, len(job.source.vms))
    found = cluster(usage, job.mixture, job.question, job.cluster)
    drawn = np.zeros((1 + len(found.drawn), len(job.mixture.parts), len(DRAWN)))
    for sums, order in zip(drawn, [np.arange(len(usage.vms)), *found.drawn], strict=True):
        np.add.at(sums, found.series.parts[order], found.series.figures[order][:, DRAWN])
    return Done(
        job=job._replace(source=None),
        names=usage.vms,
        figures=found.series.figures,
        reserved_bytes=usage.capacity_bytes.max(1, initial=0).astype(np.float64),
        parts=found.series.parts,
        by_step=found.series.held_bytes.sum(0, dtype=np.float64),
        drawn=drawn,
        placed=found.placed,
        answers=found.answers,
        heat=found.heat if job.cluster == 0 else {},
    )


def lost(job: Job, why: str) -> Done:
    """What became of a job that no worker got through."""
    return Done(job._replace(source=None), problem=f"VMs {job.first} to {job.end - 1}, {job.mixture.name}: {why}")


class Carrying:
    """A pool whose workers are on other machines: each job is sent with its usage."""

    def __init__(self, pool: Pool[Job, Done]) -> None:
        """Take the pool."""
        self.room = pool.room
        self._pool = pool

    def submit(self, job: Job) -> Future[Done]:
        """Read its usage, and have it run."""
        assert job.source is not None
        return self._pool.submit(job._replace(source=Carried(job.source.read(0, len(job.source.vms))[0])))

    def restart(self) -> None:
        """As the pool does it."""
        self._pool.restart()

    def close(self) -> None:
        """As the pool does it."""
        self._pool.close()
