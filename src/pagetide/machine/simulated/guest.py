"""A simulated guest at work: its vCPUs run a workload's operations over one zone. The counterpart of guest_run.py."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import OPERATION
from pagetide.guest.allocator.zone_layout import ORDER_MASK
from pagetide.guest.vcpu import HOST_WANTED, NO_MEMORY, NOT_HAD, note_wait
from pagetide.guest.vcpu_loop import StoppedVcpu, Surroundings
from pagetide.guest.worker import Wait
from pagetide.machine.costs import PS_PER_S
from pagetide.machine.live.guest_run import SETTLE_MAX_S
from pagetide.machine.messages import ClockStarted, PhaseBegan, PhaseEnded
from pagetide.machine.simulated.loop import NEVER_PS, Loop, Signal, Task
from pagetide.machine.simulated.operations import hold_zone_lock
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.vcpu import PIECE_WANTED, TIME_UP, at_work, run_vcpus, unfinished
from pagetide.machine.simulated.vcpu_layout import (
    BEHIND_PS,
    BLOCK_PS,
    BUSY_PS,
    CLOCK_PS,
    CURSOR,
    END,
    FROM_PS,
    MORE,
    NEXT_PS,
    OPERATIONS,
    VCPU_COLUMNS,
    WHO,
)
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.memory.metadata import MetadataFile
from pagetide.workload.stream import PIECE_OPERATIONS, Stretch, Work


class SimulatedOperation:
    """The operation at which a vCPU stopped; what vcpu_loop.py calls NextOperation."""

    def __init__(
        self, row: npt.NDArray[np.int64], operations: npt.NDArray[np.void], slots: npt.NDArray[np.int64]
    ) -> None:
        """Take the vCPU's row, and the operations and slots that it counts in."""
        self._row, self._operations, self._slots = row, operations, slots

    @property
    def order(self) -> int:
        """Of its block."""
        return int(self._operations[self._row[CURSOR]]["order"]) & ORDER_MASK

    def give_up(self) -> None:
        """Go on without it."""
        self._slots[self._operations[self._row[CURSOR]]["slot"]] = NOT_HAD
        self._row[CURSOR] += 1


class SimulatedGuest:
    """Runs a workload on a zone, in virtual time.

    Attributes:
        over: whether the workload is done.
        goes_on_ps: when a vCPU goes on; no later than that.
        busy_ps: how long the vCPUs have worked, in all.
    """

    def __init__(
        self,
        loop: Loop,
        guest: Surroundings,
        memory: MetadataFile,
        work: Work,
        worker: SimulatedWorker,
        tell: Callable[[PhaseBegan | PhaseEnded | ClockStarted], None],
        costs: npt.NDArray[np.int64],
        shared: npt.NDArray[np.int64],
        processors: Processors,
    ) -> None:
        """Take everything that the run needs; `run` is its task.

        Args:
            loop: the clock.
            guest: what its vCPUs work with.
            memory: what is resident of its page frames.
            work: what the vCPUs do.
            worker: who reports.
            tell: gets what happens.
            costs: what it costs, a row of vcpu_layout.py's costs for each number of vCPUs at work, from 1, if there
                is a processor for each.
            shared: SHARED_WORDS of vcpu_layout.py, all 0.
            processors: who wants one of them.
        """
        self.over, self.goes_on_ps, self.busy_ps = False, NEVER_PS, 0
        self._loop, self._zone, self._memory, self._work, self._worker = loop, guest.zone, memory, work, worker
        self._tell, self._costs, self._shared, self._processors = tell, costs, shared, processors
        self._in_flight = guest.in_flight
        self._pieces = [work.pieces(vcpu) for vcpu in range(len(costs))]
        self._rows = np.zeros((len(costs), VCPU_COLUMNS), np.int64)
        self._rows[:, CURSOR] = 1
        self._slots = np.full(work.slot_firsts[-1], -1, np.int64)
        self._operations = np.zeros(len(costs) * PIECE_OPERATIONS, OPERATION)
        self._due_ps = np.zeros(len(self._operations), np.int64)
        self._steps = [
            StoppedVcpu(vcpu, guest, SimulatedOperation(row, self._operations, self._slots))
            for vcpu, row in enumerate(self._rows)
        ]
        self._zero_ps = 0
        self._at_work = 0
        self._stretched: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        self._all_done = Signal(loop)

    @property
    def operations(self) -> int:
        """How many operations they have run."""
        return int(self._shared[OPERATIONS])

    def run(self) -> Task:
        """Run every operation.

        Raises:
            OutOfMemoryError: the guest is too small for its workload.
        """
        loop, in_flight, until_s = self._loop, self._in_flight, 0.0
        for stretch in self._work.stretches:
            mark, until_s = stretch.mark, stretch.until_s
            self._start_clock(stretch.from_s, until_s)
            if stretch.first_s is not None:
                yield from self._sleep_until(stretch.first_s)
            self._tell(PhaseBegan(mark.name, mark.burst, mark.eats, loop.now_s))
            self._load(stretch)
            yield from loop.wait_for(self._all_done, lambda: not unfinished(self._rows))
            behind_s = int(self._rows[:, BEHIND_PS].max()) / PS_PER_S
            self._tell(PhaseEnded(mark.burst, mark.eats, stretch.allocated_bytes, loop.now_s, behind_s))
            if mark.settle:
                settle_max_ps = round(SETTLE_MAX_S * PS_PER_S)
                yield from self._look_until(lambda: self._worker.at_rest and in_flight.at_rest, settle_max_ps)
        self._start_clock(until_s, self._work.end_s)
        yield from self._sleep_until(self._work.end_s)
        self.over = True

    def _start_clock(self, from_s: float, until_s: float) -> None:
        self._zero_ps = self._loop.now_ps - round(from_s * PS_PER_S)
        self._tell(ClockStarted(from_s, until_s, self._loop.now_s))

    def _sleep_until(self, stream_s: float) -> Task:
        """Until the stream's clock shows this."""
        left_ps = self._zero_ps + round(stream_s * PS_PER_S) - self._loop.now_ps
        if left_ps > 0:
            yield from self._loop.sleep(left_ps)

    def advance(self, until_ps: int) -> bool:
        """Let the vCPUs run up to the next event, which is then; whether one of them stopped before that."""
        while (outcome := self._run_vcpus(until_ps)) == PIECE_WANTED:
            self._fetch(self._shared.item(WHO))
        self.goes_on_ps = self._shared.item(NEXT_PS)
        self.busy_ps += self._processors.worked_ps(self._shared.item(BUSY_PS))
        self._shared[BUSY_PS] = 0
        if outcome == TIME_UP:
            return False
        self._stopped(outcome, self._shared.item(WHO))
        return True

    def _run_vcpus(self, until_ps: int) -> int:
        return int(
            run_vcpus(
                self._zone.words, self._zone.pages, self._memory.address, self._rows, self._operations, self._due_ps,
                self._slots, self._costs_now(), self._shared, until_ps,
            )
        )  # fmt: skip

    def _costs_now(self) -> npt.NDArray[np.int64]:
        """What things cost with as many at work as there are."""
        working = self._at_work, self._processors.others
        costs = self._stretched.get(working)
        if costs is None:
            costs = self._stretched[working] = self._processors.stretched_ps(self._costs[self._at_work - 1])
        return costs

    def _stopped(self, outcome: int, vcpu: int) -> None:
        """A vCPU stopped; what it does about it comes when its clock is reached, and that it waits for."""
        row, loop, steps = self._rows[vcpu], self._loop, self._steps[vcpu]
        at_ps = int(row[CLOCK_PS])
        steps.begin(loop.now_s)  # nothing came back while it ran, since that is an event
        steps.stopped(outcome)
        if steps.step != "go_on":
            loop.at(at_ps, lambda: loop.resume(self._drive(vcpu)))
        if row[CURSOR] > row[END] and not unfinished(self._rows):
            loop.at(int(self._rows[:, CLOCK_PS].max()), self._all_done.notify)
        elif outcome in (HOST_WANTED, NO_MEMORY):
            row[CLOCK_PS] = NEVER_PS
        self._count()

    def _drive(self, vcpu: int) -> Task:
        """Run the steps of a vCPU that stopped, until it goes on."""
        steps, wait = self._steps[vcpu], Wait.NOTHING
        while wait is not Wait.OVER:
            step = steps.step
            wait = steps.proceed(self._loop.now_s)
            if step == "relieve" and steps.relieved_pages:
                yield from self._gave_back(steps.relieved_pages)
            if wait is Wait.REPORT:
                yield from self._noted(vcpu, self._worker.report_from_vcpu())
            elif wait is Wait.MEMORY:
                came_back = self._look_until(lambda: steps.is_back)
                yield from self._noted(vcpu, came_back) if steps.waits_before_oom else came_back
        if self._rows[vcpu, CLOCK_PS] == NEVER_PS:
            self._go_on(vcpu)

    def _load(self, stretch: Stretch) -> None:
        """Have each vCPU run its operations of one stretch, each when it is due."""
        for vcpu, row in enumerate(self._rows):
            self._fetch(vcpu)
            row[FROM_PS], row[BEHIND_PS] = self._zero_ps + round(stretch.from_s * PS_PER_S), 0
        self._rows[:, CLOCK_PS] = self._loop.now_ps
        self._count()

    def _fetch(self, vcpu: int) -> None:
        """Give a vCPU its next operations."""
        piece, row = next(self._pieces[vcpu]), self._rows[vcpu]
        first = vcpu * PIECE_OPERATIONS
        row[CURSOR], row[END], row[MORE] = first, first + len(piece.operations), not piece.is_last
        self._operations[first : row[END]] = piece.operations
        self._due_ps[first : row[END]] = np.rint(piece.due_s * PS_PER_S).astype(np.int64) + self._zero_ps

    def _count(self) -> None:
        """Count the vCPUs at work: they share the processors. When they go on is to be looked at anew."""
        self._at_work = self._processors.vcpus = int(at_work(self._rows))
        self.goes_on_ps = self._loop.now_ps if self._at_work else NEVER_PS

    def _noted(self, vcpu: int, what: Task) -> Task:
        """Let a vCPU wait for the host, and account for the time."""
        start_ps = self._loop.now_ps
        yield from what
        note_wait(self._zone.words, vcpu, (self._loop.now_ps - start_ps) // 1000)

    def _go_on(self, vcpu: int) -> None:
        self._rows[vcpu, CLOCK_PS] = self._loop.now_ps
        self._count()

    def _look_until(self, holds: Callable[[], bool], at_most_ps: int = NEVER_PS) -> Task:
        """Wait until something holds, or for so long; where nobody notifies it is looked at every so often."""
        loop, look_again_s = self._loop, self._in_flight.look_again_s
        until_ps = min(NEVER_PS, loop.now_ps + at_most_ps)
        look_ps = NEVER_PS if math.isinf(look_again_s) else round(look_again_s * PS_PER_S)
        while not holds() and loop.now_ps < until_ps:
            yield self._worker.came_back, min(until_ps, loop.now_ps + look_ps)

    def _gave_back(self, pages: int) -> Task:
        """It took a vCPU its time to give so many pages back to the allocator, under the zone lock."""
        loop, processors, work_ps = self._loop, self._processors, pages * int(self._costs[0, BLOCK_PS])
        self.busy_ps += work_ps
        processors.others += 1
        hold_ps = processors.stretched_ps(work_ps)
        yield None, int(hold_zone_lock(self._zone.words, self._shared, loop.now_ps, hold_ps))
        processors.others -= 1
