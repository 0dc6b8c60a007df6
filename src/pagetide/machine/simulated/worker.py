"""The reporting worker of a simulated guest: its steps take virtual time, and so do its waits."""

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import PASSES, WALKED_BLOCKS
from pagetide.guest.reporting.design import Design
from pagetide.guest.worker import ReportDriver, Reporter, Reporting, Wait, Worker
from pagetide.machine.costs import PS_PER_S, Cost, Costs
from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop, Signal, Task
from pagetide.machine.simulated.operations import hold_long
from pagetide.machine.simulated.process import Processors
from pagetide.virtio.balloon import Queue


class SimulatedWorker(Reporting):
    """Drives one design over one driver in virtual time.

    Attributes:
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
        survey: Cost | None = None,
    ) -> None:
        """Take the design and its driver; `shared` are the words of vcpu.py. `run` is its task.

        `survey` is what each pass costs besides its reports and what it looks at; None is nothing.
        """
        super().__init__(design, driver)
        self.came_back = Signal(loop)
        self.busy_ps = 0
        self._loop, self._words = loop, zone.words
        self._called, self._shared, self._processors = called, shared, processors
        self._wake_ps, self._walk_ps, self._block_ps = costs.wake.ps, costs.walk.ps, costs.block.ps
        self._survey_ps = 0 if survey is None else survey.ps
        self._report_ps, self._report_block_ps = costs.report.ps, costs.report_block.ps
        self._bell = Doorbell(loop)
        self._turn_ended = Signal(loop)

    def ring(self) -> None:
        """Wake the worker: that takes a while."""
        self._loop.at(self._loop.now_ps + self._wake_ps, self._bell.ring)

    def tell(self) -> None:
        """Let those go on who wait for `came_back`, and then those who wait for a turn."""
        self.came_back.notify()
        self._turn_ended.notify()

    def set_fault(self, kind: str, *, begins: bool) -> None:
        """`off`: the design is switched off, as soon as no batch is out; `ring-full`: a report fails at once."""
        if kind == "off":
            self.switch(not begins)
        else:
            self.ring_full = begins

    def steps(self) -> Worker:
        """The steps that `run` runs."""
        return Worker(self)

    def run(self) -> Task:
        """Report whenever the design wants it."""
        return self._drive(self.steps())

    def report_from_vcpu(self) -> Task:
        """Report as a synchronous vCPU does."""
        return self._drive(Reporter(self))

    def _drive(self, steps: Reporter) -> Task:
        """Run steps until there is no further one for now."""
        wait = Wait.NOTHING
        while wait is not Wait.OVER:
            step, walked, passes = steps.step, self._words.item(WALKED_BLOCKS), self._words.item(PASSES)
            wait = steps.proceed(self._loop.now_s)
            if step == "ask":
                begun = self._words.item(PASSES) - passes
                yield from self._asked(steps, self._words.item(WALKED_BLOCKS) - walked, begun)
            elif step == "hand_back":
                yield from self._work(0, _blocks_of(steps) * self._block_ps)
            yield from self._wait(wait, steps)

    def _wait(self, wait: Wait, steps: Reporter) -> Task:
        if wait is Wait.TURN:
            while not steps.take_turn():
                yield self._turn_ended, NEVER_PS
        elif wait is Wait.WAKE:
            assert isinstance(steps, Worker)
            yield from self._bell.wait(NEVER_PS if steps.until_s is None else _at_least_ps(steps.until_s))
        elif wait is Wait.CALL:
            yield from self._called.wait()
        elif wait is Wait.ANSWER:
            yield from self._answer()

    def _answer(self) -> Task:
        """Wait for an answer of the device's: of designs that ask it nothing there is none."""
        raise NotImplementedError

    def _asked(self, steps: Reporter, walked_blocks: int, passes_begun: int) -> Task:
        """Take the time in which the design isolated its next batch, or found that there is none."""
        blocks = _blocks_of(steps)
        # Pages for a balloon are numbers in one buffer.
        buffers = blocks if self.design.queue is Queue.REPORTING else min(blocks, 1)
        # Asking for nothing takes time, too: a design that asks over and over must not stop the clock.
        work_ps = max(self._wake_ps, 1000) if not blocks else self._report_ps + buffers * self._report_block_ps
        work_ps += passes_begun * self._survey_ps
        yield from self._work(work_ps, walked_blocks * self._walk_ps + blocks * self._block_ps)

    def _work(self, work_ps: int, locked_ps: int) -> Task:
        """Take time, and time under the zone lock."""
        if work_ps + locked_ps == 0:
            return
        processors = self._processors
        processors.others += 1
        if work_ps:
            yield None, self._loop.now_ps + processors.stretched_ps(work_ps)
        if locked_ps:  # asked for only now, so that no vCPU waits for a lock that is still free
            yield None, int(hold_long(self._words, self._shared, self._loop.now_ps, locked_ps))
        self.busy_ps += work_ps + locked_ps
        processors.others -= 1


def _blocks_of(steps: Reporter) -> int:
    """How many blocks it has out."""
    return 0 if steps.batch is None else len(steps.batch)


def _at_least_ps(time_s: float) -> int:
    """A time in picoseconds that is not before the one in seconds, rounding and all."""
    time_ps = round(time_s * PS_PER_S)
    while time_ps / PS_PER_S < time_s:
        time_ps += 1
    return time_ps
