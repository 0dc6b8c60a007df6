"""A guest of a few blocks, whose host answers when a test says so."""

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from pagetide import linux
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.machine.live.guest_run import GuestRun
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.messages import ClockStarted, Message
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Queue
from pagetide.workload.stream import Stream
from tests.machine.linux.eat_and_free import eat_and_free

NR_PAGES = 4096
_Result = TypeVar("_Result")


class HeldHost:
    """A driver and its calls, whose host answers when the test says so."""

    def __init__(self) -> None:
        self.call_fd, self.connection_fd = linux.eventfd(), linux.eventfd()
        self.submitted = threading.Event()
        self._answered = 0
        self._submitted = 0

    def submit(self, batch: Batch, queue: Queue) -> None:
        self._submitted += 1
        self.submitted.set()

    def completed(self) -> bool:
        return self._answered >= self._submitted

    def arm(self) -> bool:
        return self.completed()

    def take_call(self) -> None:
        linux.eventfd_read(self.call_fd)

    def answer(self, reports: int = 1) -> None:
        """Deal with this many reports more."""
        self._answered += reports
        linux.eventfd_write(self.call_fd)

    def close(self) -> None:
        os.close(self.call_fd)
        os.close(self.connection_fd)


class WatchedCondition(threading.Condition):
    """A condition that tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait_for(self, predicate: Callable[[], _Result], timeout: float | None = None) -> _Result:
        self.waited_for.set()
        return super().wait_for(predicate, timeout)


class Guest:
    """A zone of four blocks of 4 MiB over real memory, a drain that takes them all at once, and a held host."""

    def __init__(self, ram: Any, design: str, capacity: int, order: int) -> None:
        self.zone = Zone(NR_PAGES, watermarks=Watermarks(0, 0, 0))
        self.host = HeldHost()
        self.design = make_design(design, self.zone, ReportingSettings(order=order, delay_s=0.0, capacity=capacity))
        self.worker = GuestWorker(self.design, self.host, self.host)
        self.worker.came_back = self.condition = WatchedCondition()
        self.told: list[object] = []
        self.ram_address = ram.ctypes.data

    def run_of(self, blocks: int, *, waits: bool = True) -> GuestRun:
        return self.run_stream(eat_and_free(blocks, 10), waits=waits)

    def run_stream(self, stream: Stream, *, waits: bool = True) -> GuestRun:
        return GuestRun(self.zone, self.ram_address, stream, 1, self.worker, self.tell, waits_before_oom=waits)

    def tell(self, message: Message) -> None:
        if not isinstance(message, ClockStarted):
            self.told.append(message)


@contextlib.contextmanager
def guest_with(design: str, capacity: int, order: int = 10) -> Iterator[Guest]:
    """A guest of 16 MiB with this design."""
    with mmap.mmap(-1, NR_PAGES * PAGE_SIZE_BYTES) as ram:
        view = np.frombuffer(ram, np.int64)
        guest = Guest(view, design, capacity, order)
        yield guest
        guest.host.close()
        del view
