"""Runs cells on a pool of workers, and hands over what became of each as it becomes known.

A worker that dies takes with it the jobs that were in flight. Any of them may have been the cause, so from then on each
is tried alone; the one that loses its worker twice by itself is recorded as failed, and the others go on.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait

from pagetide.compare.grid.pools import Pool
from pagetide.compare.grid.worker import Job, lost_job
from pagetide.compare.results.records import Record

LOST_ALONE_MAX = 2
"""A cell that lost its worker so often by itself has failed."""

LOST_IN_A_ROW_MAX = 5
"""After so many cells in a row that lost their workers, the workers are what is broken."""

_TICK_S = 0.2  # how soon a Ctrl-C is noticed, and the progress redrawn


class PoolError(Exception):
    """The workers are of no use; the message is one sentence."""


class Execution:
    """Some jobs on a pool."""

    def __init__(self, jobs: Iterable[Job], pool: Pool) -> None:
        """Take what is to be run, in this order, and where."""
        self._waiting = deque(jobs)
        self._suspects: deque[Job] = deque()
        self._running: dict[Future[Record], Job] = {}
        self._lost_alone: Counter[str] = Counter()
        self._lost_in_a_row = 0
        self._alone = False  # whether what runs is a suspect
        self._pool = pool

    def run(self, take: Callable[[Record], None], is_stopped: Callable[[], bool], note: Callable[[str], None]) -> None:
        """Run all of it.

        Args:
            take: called with what became of each, in the order in which they end.
            is_stopped: asked several times a second; True ends the execution, whatever is in flight.
            note: called with a sentence for people when a worker was lost.

        Raises:
            PoolError: the workers die of whatever they are given.
        """
        while (self._waiting or self._suspects or self._running) and not is_stopped():
            self._fill()
            done, _ = wait(self._running, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            if any(isinstance(_failure(future), BrokenExecutor) for future in done):
                done, _ = wait(self._running)  # a broken executor ends all of its futures
            broken, suspects = False, len(self._suspects)
            for future in done:
                job, error = self._running.pop(future), _failure(future)
                if error is None:
                    self._lost_in_a_row = 0
                    take(future.result())
                else:
                    broken = broken or isinstance(error, BrokenExecutor)
                    self._lost(job, error, take)
            if len(self._suspects) > suspects:
                note(f"a worker was lost: runs that were in flight are tried again ({len(self._suspects) - suspects})")
            if broken:
                self._pool.restart()

    def _fill(self) -> None:
        """Keep the workers busy; suspects run one at a time and alone."""
        while self._suspects or self._waiting:
            room = 1 if self._suspects else self._pool.room
            if len(self._running) >= room or (self._running and self._alone):
                return
            self._alone = bool(self._suspects)
            queue = self._suspects or self._waiting
            try:
                future = self._pool.submit(queue[0])
            except BrokenExecutor:
                if not self._running:
                    self._pool.restart()
                return
            except Exception as error:
                raise PoolError(f"the workers take no more work: {error or type(error).__name__}") from error
            self._running[future] = queue.popleft()

    def _lost(self, job: Job, error: BaseException, take: Callable[[Record], None]) -> None:
        self._lost_alone[job.cell.key] += self._alone
        if self._lost_alone[job.cell.key] < LOST_ALONE_MAX:
            self._suspects.append(job)
            return
        why = " ".join(str(error).split()) or type(error).__name__
        take(lost_job(job, f"its worker was lost, twice: {why}"))
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_IN_A_ROW_MAX:
            raise PoolError(f"{LOST_IN_A_ROW_MAX} cells in a row lost their workers, the last one so: {why}")


def _failure(future: Future[Record]) -> BaseException | None:
    """Why there is no result; None if there is one."""
    if future.cancelled():
        return ConnectionError("the cluster gave it up")
    return future.exception()
