"""The reporting worker of a live guest: the thread in which a design runs and reports wait for the host."""

import os
import select
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from pagetide.guest.reporting.design import Batch, Design
from pagetide.linux import eventfd, eventfd_read, eventfd_write
from pagetide.virtio.balloon import Queue


class HostGoneError(Exception):
    """The device's end of the connection is closed."""


class ReportDriver(Protocol):
    """What of a driver the worker needs; BalloonDriver says what each does."""

    def submit(self, batch: Batch, queue: Queue) -> None:
        """Give these blocks to the host, on this virtqueue."""

    def completed(self) -> bool:
        """Whether the host has dealt with them."""

    def arm(self) -> bool:
        """Ask for a call when it has; whether it may have already."""


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


class GuestWorker:
    """Drives one design over one driver in real time.

    Attributes:
        failure: what ended the worker, if it was not `stop`.
        on_failure: called once there is one, in the worker's thread.
        batches_begun: how many times a batch was asked for, counted before anything is isolated.
        batches_done: how many of those are over, counted when everything is back in the allocator.
        ring_full: a fault: the queue has no room, and a report fails at once.
        came_back: notified whenever a batch is back, and when the worker comes to rest or ends.
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
        self.failure = None
        self.on_failure: Callable[[], None] = lambda: None
        self.ring_full = False
        self.batches_begun = self.batches_done = 0
        self._on = self._wanted_on = True
        self.came_back = threading.Condition()
        self._sleeping_long = self._woken = False
        self._design, self._driver, self._calls = design, driver, calls
        self._reconnecting, self._note_reported = reconnecting, note_reported
        self._wake_fd, self._stop_fd = eventfd(), eventfd()
        self._stopping = False
        self._driving = threading.Lock()
        self._reconnects = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="reporting worker")

    def __enter__(self) -> "GuestWorker":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        eventfd_write(self._stop_fd)
        self._thread.join()
        os.close(self._wake_fd)
        os.close(self._stop_fd)

    def wake(self) -> None:
        """The free path raised WAKE."""
        self._woken = True
        eventfd_write(self._wake_fd)

    def switch(self, on: bool) -> None:
        """Switch the design off, or on again, as soon as no batch is out (S14)."""
        self._wanted_on = on
        eventfd_write(self._wake_fd)

    @property
    def at_rest(self) -> bool:
        """Whether the design is on, and wants nothing until something is freed."""
        idle = self._sleeping_long and self._design.at_rest
        return idle and not self._woken and self._on and self._wanted_on

    def _run(self) -> None:
        try:
            self._design.start(time.monotonic())
            while not self._stopping:
                if self._sleep() and self._on:
                    self._design.woken(time.monotonic())
                self.report_all()
        except BaseException as error:
            self.failure = error
            self.on_failure()
        finally:
            with self.came_back:
                self.came_back.notify_all()

    def _sleep(self) -> bool:
        """Until the design is due, or somebody wakes or stops the worker; whether it was woken."""
        due_s = self._design.due_s
        if self._design.at_rest:
            with self.came_back:
                self._sleeping_long = True
                self.came_back.notify_all()
        watched = [self._wake_fd, self._stop_fd]
        if self._calls is not None:
            watched.append(self._calls.connection_fd)
        ready = _poll(watched, None if due_s is None else max(0.0, due_s - time.monotonic()))
        self._check_connection(ready)
        if self._wake_fd in ready:
            eventfd_read(self._wake_fd)
        self._sleeping_long = False
        woken = self._woken
        if woken:  # a wake-up that comes after the look is seen the next time
            self._woken = False
        return woken

    def report_all(self) -> None:
        """Report until the design has no batch; one thread after the other, the worker's and synchronous vCPUs'.

        Raises:
            HostGoneError: the device's end of the connection is closed.
        """
        more = True
        while more and not self._stopping:
            with self._driving:
                more = self._report_next()

    def report_from_vcpu(self) -> None:
        """The same from a synchronous vCPU: what is due after that is the worker's."""
        self.report_all()
        if self._design.due_s is not None:
            eventfd_write(self._wake_fd)

    def _report_next(self) -> bool:
        if not self._switched_on():
            return False
        self.batches_begun += 1
        batch = self._design.next_batch(time.monotonic())
        if batch is not None:
            reported = self._report(batch)
            self._design.done(batch, reported, time.monotonic())
        with self.came_back:
            self.batches_done += 1
            self.came_back.notify_all()
        return batch is not None

    def _switched_on(self) -> bool:
        """Whether the design is on, after it was switched if that is wanted; no batch is out."""
        if self._on and not self._wanted_on:
            self._design.stop()
        elif self._wanted_on and not self._on:
            self._design.start(time.monotonic())
        self._on = self._wanted_on
        return self._on

    def _report(self, batch: Batch) -> bool:
        """Report one batch and sleep until the host has dealt with it, or the worker is stopped; whether it has."""
        if self.ring_full:
            return False
        assert self._driver is not None
        assert self._calls is not None
        self._driver.submit(batch, self._design.queue)
        if self._note_reported is not None and self._design.queue is not Queue.DEFLATE:
            self._note_reported(batch)  # while the host is at it
        while not self._driver.completed() and not self._stopping:
            if self._driver.arm():
                continue
            ready = _poll([self._calls.call_fd, self._stop_fd, self._calls.connection_fd], None)
            if self._calls.call_fd in ready:
                self._calls.take_call()
            self._check_connection(ready)
        return not self._stopping

    def _check_connection(self, ready: set[int]) -> None:
        if self._calls is None or self._calls.connection_fd not in ready:
            return
        if self._reconnecting is None:
            raise HostGoneError("the host closed the connection")
        with self._reconnects:  # the worker and a synchronous vCPU may both have noticed
            lost = self._calls.connection_fd in _poll([self._calls.connection_fd], 0.0)
            while lost and not self._stopping:
                due_s = self._reconnecting.reconnect(time.monotonic())
                lost = due_s is not None
                if due_s is not None:
                    _poll([self._stop_fd], max(0.0, due_s - time.monotonic()))


def _poll(fds: list[int], timeout_s: float | None) -> set[int]:
    """The descriptors among these that are readable or closed, waiting up to the timeout for one."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return {fd for fd, _ in poller.poll(None if timeout_s is None else timeout_s * 1000)}
