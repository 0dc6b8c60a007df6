"""Runs jobs on a pool of workers, and hands over what became of each as it becomes known.

A worker that dies takes with it the jobs that were in flight. Any of them may have been the cause, so from then on each
is tried alone; the one that loses its worker twice by itself is given up, and the others go on.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import Any, Generic

from pagetide.workers.pools import Job, Pool, Result

LOST_ALONE_MAX = 2
"""A job that lost its worker so often by itself is given up."""

LOST_IN_A_ROW_MAX = 5
"""After so many jobs in a row that lost their workers, the workers are what is broken."""

_TICK_S = 0.2  # how soon a Ctrl-C is noticed, and the progress redrawn


class PoolError(Exception):
    """The workers are of no use; the message is one sentence."""


class Execution(Generic[Job, Result]):
    """Some jobs on a pool."""

    def __init__(self, jobs: Iterable[Job], pool: Pool[Job, Result], lost: Callable[[Job, str], Result]) -> None:
        """Take what is to be run and in which order, where, and what is said of a job that is given up."""
        self._waiting = deque(enumerate(jobs))
        self._suspects: deque[tuple[int, Job]] = deque()
        self._running: dict[Future[Result], tuple[int, Job]] = {}
        self._lost_alone: Counter[int] = Counter()
        self._lost_in_a_row = 0
        self._alone = False  # whether what runs is a suspect
        self._pool, self._give_up = pool, lost

    def run(self, take: Callable[[Result], None], is_stopped: Callable[[], bool], note: Callable[[str], None]) -> None:
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
                (number, job), error = self._running.pop(future), _failure(future)
                if error is None:
                    self._lost_in_a_row = 0
                    take(future.result())
                else:
                    broken = broken or isinstance(error, BrokenExecutor)
                    self._lost(number, job, error, take)
            if len(self._suspects) > suspects:
                note(f"a worker was lost: what was in flight is tried again ({len(self._suspects) - suspects})")
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
                future = self._pool.submit(queue[0][1])
            except BrokenExecutor:
                if not self._running:
                    self._pool.restart()
                return
            except Exception as error:
                raise PoolError(f"the workers take no more work: {error or type(error).__name__}") from error
            self._running[future] = queue.popleft()

    def _lost(self, number: int, job: Job, error: BaseException, take: Callable[[Result], None]) -> None:
        self._lost_alone[number] += self._alone
        if self._lost_alone[number] < LOST_ALONE_MAX:
            self._suspects.append((number, job))
            return
        why = " ".join(str(error).split()) or type(error).__name__
        take(self._give_up(job, f"its worker was lost, twice: {why}"))
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_IN_A_ROW_MAX:
            raise PoolError(f"{LOST_IN_A_ROW_MAX} jobs in a row lost their workers, the last one so: {why}")


def _failure(future: Future[Any]) -> BaseException | None:
    """Why there is no result; None if there is one."""
    if future.cancelled():
        return ConnectionError("the cluster gave it up")
    return future.exception()
