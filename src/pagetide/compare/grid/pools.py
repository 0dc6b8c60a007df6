"""Where cells run: a pool of processes on this machine, or a Dask cluster. Both are a `concurrent.futures` executor."""

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
from typing import Any, Protocol
from urllib.parse import urlsplit

from pagetide.compare.grid.worker import Job, prepare_worker, run_job
from pagetide.compare.results.records import Record
from pagetide.machine.config_error import ConfigError
from pagetide.machine.versions import versions

_AHEAD = 2  # jobs in flight for each worker, so that none waits for the parent
_CONNECT_MAX_S = 5


class Pool(Protocol):
    """Where jobs run.

    Attributes:
        room: how many jobs may be in flight.
    """

    room: int

    def submit(self, job: Job) -> Future[Record]:
        """Have a job run. The future fails if its worker is lost."""

    def restart(self) -> None:
        """Go on after the executor broke."""

    def close(self) -> None:
        """Let go of the workers; what still runs is stopped, and not waited for."""


class ExecutorPool:
    """Jobs on executors that a function makes: the first one when there is a job, a new one when one broke."""

    def __init__(self, make: Callable[[], Executor], room: int, *, run: Callable[[Job], Any] = run_job) -> None:
        """Take what makes an executor, and how many jobs it may have in flight."""
        self.room = room
        self._make, self._run = make, run
        self._executor: Executor | None = None

    def submit(self, job: Job) -> Future[Record]:
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


class ProcessPool(ExecutorPool):
    """Jobs on processes of this machine, which load kernels once each.

    A worker leaves its record in a file and sends the file's name: whoever is killed while it sends something larger
    than a pipe takes at once leaves half of it, and `ProcessPoolExecutor` waits for the other half for ever.
    """

    def __init__(self, jobs: int, *, run: Callable[[Job], Record] = run_job) -> None:
        """Start as many workers, when there is something to do.

        Args:
            jobs: how many run at once.
            run: what is done with each, a function of a module.
        """
        context = multiprocessing.get_context("spawn")
        self._before = set(multiprocessing.active_children())
        self._records = tempfile.TemporaryDirectory(prefix="pagetide-compare-", ignore_cleanup_errors=True)
        super().__init__(
            lambda: ProcessPoolExecutor(jobs, mp_context=context, initializer=prepare_worker),
            _AHEAD * jobs,
            run=functools.partial(_leave_record, run, self._records.name),
        )

    def submit(self, job: Job) -> Future[Record]:
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
        self._records.cleanup()


def _leave_record(run: Callable[[Job], Record], folder: str, job: Job) -> Path:
    """In a worker: run a job, and leave its record in a new file."""
    file, path = tempfile.mkstemp(dir=folder)
    with os.fdopen(file, "wb") as left:
        pickle.dump(run(job), left)
    return Path(path)


def _taken_up(left: Future[Any]) -> Future[Record]:
    """A future of the record in the file that this one names."""
    record: Future[Record] = Future()

    def take_up(left: Future[Path]) -> None:
        if left.cancelled():
            record.cancel()
            record.set_running_or_notify_cancel()
        elif (error := left.exception()) is not None:
            record.set_exception(error)
        else:
            path = left.result()
            record.set_result(pickle.loads(path.read_bytes()))  # noqa: S301 our own worker wrote it
            path.unlink()

    left.add_done_callback(take_up)
    return record


def _check_address(address: str) -> None:
    """Dask's client takes any text, and fails with it much later and at length."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        is_one = bool(parts.hostname) and bool(parts.port) and not re.search(r"\s", address)
    except ValueError:  # the port is no number, or too large
        is_one = False
    if not is_one or parts.path or parts.query:
        raise ConfigError(f"a Dask scheduler has an address such as tcp://10.0.0.1:8786, not {address!r}")


class ClusterPool:
    """Jobs on the workers of a Dask cluster."""

    def __init__(self, address: str) -> None:
        """Connect to its scheduler.

        Raises:
            ConfigError: this is no address, `distributed` is not installed, nothing answers, or the cluster has no
                workers.
        """
        _check_address(address)
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise ConfigError("--cluster needs distributed: pip install 'pagetide[cluster]'") from None
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

    def submit(self, job: Job) -> Future[Record]:
        """Have a job run. The future fails if its worker is lost more often than the scheduler bears."""
        future: Future[Record] = self._executor.submit(run_job, job)
        return future

    def restart(self) -> None:
        """Nothing: the scheduler has its jobs run by the workers that are left, and takes new ones."""

    def close(self) -> None:
        """Cancel what runs, and disconnect."""
        self._executor.shutdown(wait=False)
        self._client.close()
