"""The reporting worker of a simulated guest: guest_worker.py's, with virtual time in place of threads and eventfds."""

from collections.abc import Generator

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import WALKED_BLOCKS
from pagetide.guest.reporting.design import Batch, Design
from pagetide.machine.costs import PS_PER_S, Costs
from pagetide.machine.live.guest_worker import ReportDriver
from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop, Signal, Task, Wait
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.vcpu import hold_long
from pagetide.virtio.balloon import Queue


class SimulatedWorker:
    """Drives one design over one driver in virtual time.

    Attributes:
        batches_begun: how many times a batch was asked for, counted before anything is isolated.
        batches_done: how many of those are over, counted when everything is back in the allocator.
        came_back: notified whenever a batch is back, and when the worker comes to rest.
        busy_ps: how long it has worked.
    """

    def __init__(
        self,
        loop: Loop,
        zone: Zone,
        design: Design,
        driver: ReportDriver | None,
        called: Doorbell,
        costs: Costs,
        shared: npt.NDArray[np.int64],
        processors: Processors,
    ) -> None:
        """Take the design and its driver; `shared` are the words of vcpu.py. `run` is its task."""
        self.batches_begun = self.batches_done = 0
        self.came_back = Signal(loop)
        self.busy_ps = 0
        self._loop, self._zone, self._design, self._driver = loop, zone, design, driver
        self._called, self._shared, self._processors = called, shared, processors
        self._wake_ps, self._walk_ps, self._block_ps = costs.wake.ps, costs.walk.ps, costs.block.ps
        self._report_ps, self._report_block_ps = costs.report.ps, costs.report_block.ps
        self._woken = self._sleeping_long = self._driving = self._ring_full = False
        self._on = self._wanted_on = True
        self._bell = Doorbell(loop)
        self._not_driving = Signal(loop)

    @property
    def at_rest(self) -> bool:
        """Whether the design is on, and wants nothing until something is freed."""
        idle = self._sleeping_long and self._design.at_rest
        return idle and not self._woken and self._on and self._wanted_on

    def set_fault(self, kind: str, *, begins: bool) -> None:
        """`off`: the design is switched off, as soon as no batch is out; `ring-full`: a report fails at once."""
        if kind == "off":
            self._wanted_on = not begins
            self._loop.at(self._loop.now_ps + self._wake_ps, self._bell.ring)
        else:
            self._ring_full = begins

    def wake(self) -> None:
        """The free path raised WAKE."""
        self._woken = True
        self._loop.at(self._loop.now_ps + self._wake_ps, self._bell.ring)

    def run(self) -> Task:
        """Report whenever the design wants it."""
        self._design.start(self._loop.now_s)
        while True:
            yield from self._sleep()
            woken, self._woken = self._woken, False
            if woken and self._on:
                self._design.woken(self._loop.now_s)
            yield from self.report_all()

    def _switched_on(self) -> bool:
        """Whether the design is on, after it was switched if that is wanted; no batch is out."""
        if self._on and not self._wanted_on:
            self._design.stop()
        elif self._wanted_on and not self._on:
            self._design.start(self._loop.now_s)
        self._on = self._wanted_on
        return self._on

    def _sleep(self) -> Task:
        """Until the design is due, or somebody wakes the worker."""
        due_s = self._design.due_s
        if self._design.at_rest:
            self._sleeping_long = True
            self.came_back.notify()
        yield from self._bell.wait(NEVER_PS if due_s is None else _at_least_ps(due_s))
        self._sleeping_long = False

    def report_all(self) -> Task:
        """Report until the design has no batch; one after the other, the worker and synchronous vCPUs."""
        more = True
        while more:
            while self._driving:
                yield self._not_driving, NEVER_PS
            self._driving = True
            more = yield from self._report_next()
            self._driving = False
            self._not_driving.notify()

    def report_from_vcpu(self) -> Task:
        """The same from a synchronous vCPU: what is due after that is the worker's."""
        yield from self.report_all()
        if self._design.due_s is not None:
            self._loop.at(self._loop.now_ps + self._wake_ps, self._bell.ring)

    def _report_next(self) -> Generator[Wait, None, bool]:
        if not self._switched_on():
            return False
        self.batches_begun += 1
        words = self._zone.words
        walked = words.item(WALKED_BLOCKS)
        batch = self._design.next_batch(self._loop.now_s)
        blocks = 0 if batch is None else len(batch)
        # Pages for a balloon are numbers in one buffer.
        buffers = blocks if self._design.queue is Queue.REPORTING else min(blocks, 1)
        # Asking for nothing takes time, too: a design that asks over and over must not stop the clock.
        work_ps = max(self._wake_ps, 1000) if batch is None else self._report_ps + buffers * self._report_block_ps
        locked_ps = (words.item(WALKED_BLOCKS) - walked) * self._walk_ps + blocks * self._block_ps
        yield from self._work(work_ps, locked_ps)
        if batch is not None:
            full = self._ring_full
            if not full:
                yield from self._report(batch)
            self._design.done(batch, not full, self._loop.now_s)
            yield from self._work(0, blocks * self._block_ps)
        self.batches_done += 1
        self.came_back.notify()
        return batch is not None

    def _work(self, work_ps: int, locked_ps: int) -> Task:
        """Take time, and time under the zone lock."""
        if work_ps + locked_ps == 0:
            return
        processors = self._processors
        processors.others += 1
        if work_ps:
            yield None, self._loop.now_ps + processors.stretched_ps(work_ps)
        if locked_ps:  # asked for only now, so that no vCPU waits for a lock that is still free
            yield None, int(hold_long(self._zone.words, self._shared, self._loop.now_ps, locked_ps))
        self.busy_ps += work_ps + locked_ps
        processors.others -= 1

    def _report(self, batch: Batch) -> Task:
        """Report one batch and sleep until the host has dealt with it."""
        assert self._driver is not None
        self._driver.submit(batch, self._design.queue)
        while not self._driver.completed():
            if not self._driver.arm():
                yield from self._called.wait()


def _at_least_ps(time_s: float) -> int:
    """A time in picoseconds that is not before the one in seconds, rounding and all."""
    time_ps = round(time_s * PS_PER_S)
    while time_ps / PS_PER_S < time_s:
        time_ps += 1
    return time_ps
