"""The reporting worker of a live guest: the thread in which its steps run and its waits are executed."""

import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol

from pagetide.guest.reporting.design import Batch, Design
from pagetide.guest.worker import ReportDriver, Reporter, Reporting, Wait, Worker
from pagetide.linux import eventfd, eventfd_read, eventfd_write


class HostGoneError(Exception):
    """The device's end of the connection is closed."""


class CallSource(Protocol):
    """Where a device's calls, and its end, are noticed."""

    @property
    def call_fd(self) -> int:
        """Readable when the device calls."""

    def take_call(self) -> None:
        """Take what made it readable; from the thread that drives."""

    @property
    def connection_fd(self) -> int:
        """Readable once the device's end is closed."""


class Reconnecting(Protocol):
    """A way to a device that can be had again; VhostUserLink says what each does."""

    def reconnect(self, now_s: float) -> float | None:
        """Try once; when to try again, or None."""


class GuestWorker(Reporting):
    """Drives one design over one driver in real time.

    Attributes:
        failure: what ended the worker, if it was not `stop`.
        on_failure: called once there is one, in the worker's thread.
        came_back: notified whenever a batch is back, and when the worker comes to rest or ends.
        cpu_s: user and system time of its thread, and of synchronous vCPUs' while they report; once they are done.
    """

    failure: BaseException | None

    def __init__(
        self,
        design: Design,
        driver: ReportDriver | None,
        calls: CallSource | None,
        reconnecting: Reconnecting | None = None,
        note_reported: Callable[[Batch], None] | None = None,
    ) -> None:
        """Make the thread; a design that never reports needs neither a driver nor its calls.

        With `reconnecting` a closed connection is waited out, as long as it takes. `note_reported` is told of each
        batch that is given to the host.
        """
        super().__init__(design, driver, note_reported)
        self.failure = None
        self.on_failure: Callable[[], None] = lambda: None
        self.came_back = threading.Condition()
        self.cpu_s = 0.0
        self._calls, self._reconnecting = calls, reconnecting
        self._wake_fd, self._stop_fd = eventfd(), eventfd()
        self._watched: tuple[int, ...] = ()
        self._watch = select.poll()
        self._reconnects = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="reporting worker")

    def __enter__(self) -> "GuestWorker":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping = True
        eventfd_write(self._stop_fd)
        self._thread.join()
        os.close(self._wake_fd)
        os.close(self._stop_fd)

    def ring(self) -> None:
        """Wake the worker's thread."""
        eventfd_write(self._wake_fd)

    def tell(self) -> None:
        """Wake whoever waits for `came_back`."""
        with self.came_back:
            self.came_back.notify_all()

    def steps(self) -> Worker:
        """The steps that the thread is to run."""
        return Worker(self)

    def report_from_vcpu(self) -> None:
        """Report from a synchronous vCPU's thread.

        Raises:
            HostGoneError: the device's end of the connection is closed.
        """
        self._drive(Reporter(self))

    def wait_until(self, holds: Callable[[], bool], most_s: float = math.inf, look_again_s: float = math.inf) -> None:
        """Until something holds, or the time is over; who tells is shut out between a look and the wait for a word.

        Args:
            holds: what is waited for; looked at whenever somebody is told, and at least every so often.
            most_s: the time.
            look_again_s: how often.

        Raises:
            Exception: whatever ended the worker.
        """
        end_s = time.monotonic() + most_s

        def over() -> bool:
            return holds() or self.failure is not None

        with self.came_back:
            while not over() and (left_s := end_s - time.monotonic()) > 0:
                timeout_s = min(left_s, look_again_s)
                self.came_back.wait_for(over, None if timeout_s == math.inf else timeout_s)
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self._drive(self.steps())
        except BaseException as error:
            self.failure = error
            self.on_failure()
        finally:
            self.tell()

    def _drive(self, steps: Reporter) -> None:
        """Run steps until there is no further one for now."""
        before_s = time.thread_time()
        try:
            while (wait := steps.proceed(time.monotonic())) is not Wait.OVER:
                if wait is Wait.TURN:
                    self._wait_for_turn(steps)
                elif wait is Wait.WAKE:
                    assert isinstance(steps, Worker)
                    self._sleep(steps.until_s)
                elif wait is Wait.CALL:
                    self._wait_for_call()
        finally:
            if steps.has_turn:  # it failed, and nobody is to wait for ever
                steps.end_turn()
            with self.came_back:
                self.cpu_s += time.thread_time() - before_s

    def _wait_for_turn(self, steps: Reporter) -> None:
        with self.came_back:
            if not steps.take_turn():
                self.came_back.wait_for(steps.take_turn)

    def _sleep(self, until_s: float | None) -> None:
        """Until this time, or until somebody rings or stops the worker."""
        connection = () if self._calls is None else (self._calls.connection_fd,)
        watched = (self._wake_fd, self._stop_fd, *connection)
        if watched != self._watched:
            self._watched, self._watch = watched, _watch(watched)
        ready = _ready(self._watch, None if until_s is None else max(0.0, until_s - time.monotonic()))
        self._check_connection(ready)
        if self._wake_fd in ready:
            eventfd_read(self._wake_fd)

    def _wait_for_call(self) -> None:
        """Until the device calls, or the worker is stopped."""
        calls = self._calls
        assert calls is not None
        ready = _poll([calls.call_fd, self._stop_fd, calls.connection_fd], None)
        if calls.call_fd in ready:
            calls.take_call()
        self._check_connection(ready)

    def _check_connection(self, ready: set[int]) -> None:
        if self._calls is None or self._calls.connection_fd not in ready:
            return
        if self._reconnecting is None:
            raise HostGoneError("the host closed the connection")
        with self._reconnects:  # the worker and a synchronous vCPU may both have noticed
            lost = self._calls.connection_fd in _poll([self._calls.connection_fd], 0.0)
            while lost and not self.stopping:
                due_s = self._reconnecting.reconnect(time.monotonic())
                lost = due_s is not None
                if due_s is not None:
                    _poll([self._stop_fd], max(0.0, due_s - time.monotonic()))


def _poll(fds: Iterable[int], timeout_s: float | None) -> set[int]:
    """The descriptors among these that are readable or closed, waiting up to the timeout for one."""
    return _ready(_watch(fds), timeout_s)


def _watch(fds: Iterable[int]) -> select.poll:
    watch = select.poll()
    for fd in fds:
        watch.register(fd, select.POLLIN)
    return watch


def _ready(watch: select.poll, timeout_s: float | None) -> set[int]:
    return {fd for fd, _ in watch.poll(None if timeout_s is None else timeout_s * 1000)}
