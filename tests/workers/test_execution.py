"""Jobs on workers, of which some are lost: by a script, in threads that stand for processes."""

import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from pagetide.compare.grid.worker import Job, lost_job, run_job
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import Record
from pagetide.machine.config import RunConfig
from pagetide.workers.execution import LOST_IN_A_ROW_MAX, Execution, PoolError
from pagetide.workers.pools import ExecutorPool, ProcessPool, _taken_up
from tests.compare.results.test_compare_store import record_of

Fault = Callable[[int, int], BaseException | None]
"""What becomes of a job, by its seed and by how many times it was tried before; None if it is done."""


class Bench:
    """Runs jobs of the seeds 0, 1, … as a script says."""

    def __init__(self, fault: Fault = lambda seed, tried: None) -> None:
        self.tried: Counter[int] = Counter()
        self.taken: list[Record] = []
        self.notes: list[str] = []
        self.executors = 0
        self._fault = fault

    def run(self, jobs: int, room: int = 4, *, stop_after: int | None = None) -> None:
        """Run so many jobs; with `stop_after`, until so many are done."""
        pool: ExecutorPool[Job, Record] = ExecutorPool(self._executor, room, run=self._job)
        try:
            Execution(map(job_of, range(jobs)), pool, lost_job).run(
                self.taken.append, lambda: stop_after is not None and len(self.taken) >= stop_after, self.notes.append
            )
        finally:
            pool.close()

    def _executor(self) -> ThreadPoolExecutor:
        self.executors += 1
        return ThreadPoolExecutor(2)

    def _job(self, job: Job) -> Record:
        seed = job.cell.config.seed
        self.tried[seed] += 1
        error = self._fault(seed, self.tried[seed] - 1)
        if error is not None:
            raise error
        return record_of(job.cell)

    @property
    def outcomes(self) -> dict[int, bool]:
        """Whether each seed that was taken failed."""
        assert len({record.cell.key for record in self.taken}) == len(self.taken)
        return {record.cell.config.seed: record.failed for record in self.taken}


def job_of(seed: int) -> Job:
    """A job that is told from others by its seed."""
    return Job(Cell(RunConfig(seed=seed), "live"))


def test_every_job_is_run_once() -> None:
    """Without a fault each is taken once, from one executor."""
    bench = Bench()
    bench.run(50)
    assert bench.outcomes == dict.fromkeys(range(50), False)
    assert set(bench.tried.values()) == {1}
    assert (bench.executors, bench.notes) == (1, [])


def test_no_more_are_in_flight_than_there_is_room() -> None:
    """Jobs are handed out as workers become free, not all at once."""
    seen: list[int] = []
    bench = Bench()
    pool: ExecutorPool[Job, Record] = ExecutorPool(
        lambda: ThreadPoolExecutor(2), 3, run=lambda job: record_of(job.cell)
    )
    execution = Execution(map(job_of, range(20)), pool, lost_job)

    def is_stopped() -> bool:
        seen.append(len(execution._running))
        return False

    execution.run(bench.taken.append, is_stopped, bench.notes.append)
    pool.close()
    assert len(bench.taken) == 20
    assert max(seen) <= 3


def test_what_was_in_flight_when_a_worker_died_is_tried_again() -> None:
    """Jobs of a broken executor are run on a new one, and their second time counts."""
    bench = Bench(lambda seed, tried: BrokenProcessPool("killed") if seed in (4, 5) and tried == 0 else None)
    bench.run(12)
    assert bench.outcomes == dict.fromkeys(range(12), False)
    assert bench.tried[4] == bench.tried[5] == 2
    assert bench.executors >= 2
    assert "a worker was lost" in bench.notes[0]


def test_only_the_job_that_kills_its_workers_fails() -> None:
    """Its neighbours in flight are lost with it once; alone, it is found out, and says why with its seed."""
    neighbours = {6, 7}
    bench = Bench(
        lambda seed, tried: BrokenProcessPool("died") if seed == 5 or (seed in neighbours and tried == 0) else None
    )
    bench.run(20)
    assert bench.outcomes == {seed: seed == 5 for seed in range(20)}
    (failed,) = (record for record in bench.taken if record.failed)
    assert failed.outcome == "its worker was lost, twice: died"
    assert "--seed 5" in failed.cell.replay
    assert bench.tried[5] == 3


def test_a_loss_in_company_proves_nothing() -> None:
    """One that was in flight beside the killer, and loses its own worker once when it is tried alone, is done."""
    killer, unlucky = 5, 7
    bench = Bench(
        lambda seed, tried: BrokenProcessPool("died") if seed == killer or (seed == unlucky and tried < 2) else None
    )
    bench.run(20)
    assert bench.outcomes == {seed: seed == killer for seed in range(20)}
    assert bench.tried[unlucky] == 3


def test_a_task_that_a_cluster_gives_up_is_tried_once_more() -> None:
    """An executor that goes on without a lost worker is not replaced."""
    bench = Bench(lambda seed, tried: CancelledError() if seed == 3 and tried == 0 else None)
    bench.run(10)
    assert bench.outcomes == dict.fromkeys(range(10), False)
    assert bench.executors == 1


def test_workers_that_die_of_anything_end_the_grid() -> None:
    """Instead of one failed run after the other, a sentence."""
    bench = Bench(lambda seed, tried: BrokenProcessPool("no memory"))
    with pytest.raises(PoolError, match=f"{LOST_IN_A_ROW_MAX} jobs in a row lost their workers.*: no memory"):
        bench.run(100)
    assert len(bench.taken) == LOST_IN_A_ROW_MAX


def test_an_executor_that_takes_nothing_ends_the_grid() -> None:
    """One that was shut down, say, or whose cluster is gone."""
    gone = ThreadPoolExecutor(1)
    gone.shutdown()
    pool: ExecutorPool[Job, Record] = ExecutorPool(lambda: gone, 2, run_job)
    with pytest.raises(PoolError, match="the workers take no more work: cannot schedule new futures after shutdown"):
        Execution([job_of(1)], pool, lost_job).run(lambda record: None, lambda: False, lambda text: None)


def test_it_stops_when_it_is_told() -> None:
    """What is done by then was taken, and nothing more is begun."""
    bench = Bench()
    bench.run(1000, stop_after=10)
    assert 10 <= len(bench.taken) < 20


def test_a_result_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    """A file that is gone, or is no result: the job fails with that, and nobody waits for it."""
    (tmp_path / "torn").write_bytes(b"no pickle")
    for name, kind in (("gone", FileNotFoundError), ("torn", pickle.UnpicklingError)):
        left: Future[Path] = Future()
        found = _taken_up(left)
        left.set_result(tmp_path / name)
        assert found.done()
        assert isinstance(found.exception(), kind)


def test_a_pool_without_workers_is_none() -> None:
    """Its jobs would wait for ever."""
    with pytest.raises(ValueError, match="at least one worker, not 0"):
        ProcessPool(0, run_job)


@pytest.mark.slow
def test_a_worker_that_is_killed_amid_its_record_is_a_worker_lost() -> None:
    """Half a message on a pipe is waited for without end: what workers send is never more than a pipe takes at once."""
    command = [sys.executable, "-m", "tests.workers.interrupted_pool"]
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == b"BrokenProcessPool"
