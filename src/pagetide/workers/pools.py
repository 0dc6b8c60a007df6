"""Where jobs run: a pool of processes on this machine, or a Dask cluster. Both are a `concurrent.futures` executor."""

import functools
import importlib
import multiprocessing
import os
import pickle
import re
import signal
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from pagetide.machine.config_error import ConfigError
from pagetide.machine.versions import versions
from pagetide.processes import set_parent_death_signal

Job = TypeVar("Job")
"""What is to be done; a worker is sent it."""

Result = TypeVar("Result")
"""What a worker makes of it."""

Job_contra = TypeVar("Job_contra", contravariant=True)

_AHEAD = 2  # jobs in flight for each worker, so that none waits for the parent
_CONNECT_MAX_S = 5


class Pool(Protocol[Job_contra, Result]):
    """Where jobs run.

    Attributes:
        room: how many jobs may be in flight.
    """

    room: int

    def submit(self, job: Job_contra) -> Future[Result]:
        """Have a job run. The future fails if its worker is lost."""

    def restart(self) -> None:
        """Go on after the executor broke."""

    def close(self) -> None:
        """Let go of the workers; what still runs is stopped, and not waited for."""


def prepare_worker() -> None:
    """Make a process a worker: Ctrl-C is its parent's business, and it does not outlive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked until here by who started it
    set_parent_death_signal(signal.SIGKILL)


class ExecutorPool(Generic[Job, Result]):
    """Jobs on executors that a function makes: the first one when there is a job, a new one when one broke."""

    def __init__(self, make: Callable[[], Executor], room: int, run: Callable[[Job], Any]) -> None:
        """Take what makes an executor, how many jobs it may have in flight, and what is done with each."""
        self.room = room
        self._make, self._run = make, run
        self._executor: Executor | None = None

    def submit(self, job: Job) -> Future[Result]:
        """Have a job run. The future fails if its worker is lost."""
        if self._executor is None:
            self._executor = self._make()
        return self._executor.submit(self._run, job)

    def restart(self) -> None:
        """Have the next job run on a new executor, in place of the broken one."""
        ExecutorPool.close(self)
        self._executor = None

    def close(self) -> None:
        """Stop what runs, and end the workers."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


class ProcessPool(ExecutorPool[Job, Result]):
    """Jobs on processes of this machine, which load kernels once each.

    A worker leaves its result in a file and sends the file's name: whoever is killed while it sends something larger
    than a pipe takes at once leaves half of it, and `ProcessPoolExecutor` waits for the other half for ever.
    """

    def __init__(self, jobs: int, run: Callable[[Job], Result]) -> None:
        """Start as many workers, when there is something to do.

        Args:
            jobs: how many run at once.
            run: what is done with each, a function of a module.

        Raises:
            ValueError: there is to be no worker, and all would wait for ever.
        """
        if jobs < 1:
            raise ValueError(f"a pool has at least one worker, not {jobs}")
        context = multiprocessing.get_context("spawn")
        self._before = set(multiprocessing.active_children())
        self._results = tempfile.TemporaryDirectory(prefix="pagetide-workers-", ignore_cleanup_errors=True)
        super().__init__(
            lambda: ProcessPoolExecutor(jobs, mp_context=context, initializer=prepare_worker),
            _AHEAD * jobs,
            run=functools.partial(_leave_result, run, self._results.name),
        )

    def submit(self, job: Job) -> Future[Result]:
        """Have a job run, on a worker that may have to be started: Ctrl-C reaches that one only once it ignores it."""
        resource_tracker.ensure_running()  # it unblocks what it blocked while it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return _taken_up(super().submit(job))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Kill the workers: what they were doing is not kept, and a live run's processes end with them."""
        for process in multiprocessing.active_children():
            if process not in self._before:
                process.kill()
        super().close()
        self._results.cleanup()


def _leave_result(run: Callable[[Job], Result], folder: str, job: Job) -> Path:
    """In a worker: run a job, and leave its result in a new file."""
    file, path = tempfile.mkstemp(dir=folder)
    with os.fdopen(file, "wb") as left:
        pickle.dump(run(job), left)
    return Path(path)


def _taken_up(left: Future[Any]) -> Future[Any]:
    """A future of the result in the file that this one names."""
    found: Future[Any] = Future()

    def take_up(left: Future[Path]) -> None:
        if left.cancelled():
            found.cancel()
            found.set_running_or_notify_cancel()
        elif (error := left.exception()) is not None:
            found.set_exception(error)
        else:
            path = left.result()
            try:
                result = pickle.loads(path.read_bytes())  # noqa: S301 our own worker wrote it
                path.unlink()
            except Exception as unreadable:  # whoever waits would do so for ever
                found.set_exception(unreadable)
            else:
                found.set_result(result)

    left.add_done_callback(take_up)
    return found


def _check_address(address: str) -> None:
    """Dask's client takes any text, and fails with it much later and at length."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        is_one = bool(parts.hostname) and bool(parts.port) and not re.search(r"\s", address)
    except ValueError:  # the port is no number, or too large
        is_one = False
    if not is_one or parts.path or parts.query:
        raise ConfigError(f"a Dask scheduler has an address such as tcp://10.0.0.1:8786, not {address!r}")


class ClusterPool(Generic[Job, Result]):
    """Jobs on the workers of a Dask cluster."""

    def __init__(self, address: str, run: Callable[[Job], Result]) -> None:
        """Connect to its scheduler.

        Args:
            address: where it answers.
            run: what is done with each job, a function of a module.

        Raises:
            ConfigError: this is no address, `distributed` is not installed, nothing answers, or the cluster has no
                workers.
        """
        _check_address(address)
        self._run = run
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise ConfigError(
                "--cluster needs distributed; in pagetide's source folder: pip install '.[cluster]'"
            ) from None
        try:
            self._client = distributed.Client(address, timeout=_CONNECT_MAX_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no Dask scheduler answers at {address}: {error}") from error
        self._executor = self._client.get_executor(pure=False, retries=0)
        try:
            self.room = _AHEAD * self._threads(address)
        except BaseException:
            self.close()
            raise

    def _threads(self, address: str) -> int:
        """How many runs the cluster's workers take at once; all must have this version of pagetide."""
        threads = self._client.nthreads()
        if not threads:
            raise ConfigError(f"the cluster at {address} has no workers: start some with `dask worker {address}`")
        here = versions()["pagetide"]
        for worker, found in self._client.run(versions, on_error="return").items():
            if isinstance(found, Exception):
                raise ConfigError(f"the worker {worker} cannot run pagetide: {found}")
            if found["pagetide"] != here:
                raise ConfigError(f"the worker {worker} has pagetide {found['pagetide']}, and this is {here}")
        return sum(threads.values())

    def submit(self, job: Job) -> Future[Result]:
        """Have a job run. The future fails if its worker is lost more often than the scheduler bears."""
        future: Future[Result] = self._executor.submit(self._run, job)
        return future

    def restart(self) -> None:
        """Nothing: the scheduler has its jobs run by the workers that are left, and takes new ones."""

    def close(self) -> None:
        """Cancel what runs, and disconnect."""
        self._executor.shutdown(wait=False)
        self._client.close()
