"""A simulated guest at work: its vCPUs run a workload's operations over one zone. The counterpart of guest_run.py."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pagetide.guest.vcpu import HOST_WANTED, NO_MEMORY, NOT_HAD, note_wait
from pagetide.guest.vcpu_loop import StoppedVcpu, Surroundings
from pagetide.guest.worker import Wait
from pagetide.machine.costs import PS_PER_S
from pagetide.machine.live.guest_run import SETTLE_MAX_S
from pagetide.machine.messages import ClockStarted, PhaseBegan, PhaseEnded
from pagetide.machine.simulated.loop import NEVER_PS, Loop, Signal, Task
from pagetide.machine.simulated.operations import hold_zone_lock
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.vcpu import TIME_UP, at_work, run_vcpus, unfinished
from pagetide.machine.simulated.vcpu_layout import (
    BEHIND_PS,
    BLOCK_PS,
    BUSY_PS,
    CLOCK_PS,
    CURSOR,
    END,
    FROM_PS,
    NEXT_PS,
    OPERATIONS,
    VCPU_COLUMNS,
    WHO,
)
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.memory.metadata import MetadataFile
from pagetide.workload.stream import Stream, Stretch


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
        return int(self._operations[self._row[CURSOR]]["order"])

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
        stream: Stream,
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
            stream: what the vCPUs do.
            worker: who reports.
            tell: gets what happens.
            costs: what it costs, a row of vcpu.py's costs for each number of vCPUs at work, from 1, if there
                is a processor for each.
            shared: SHARED_WORDS of vcpu.py, all 0.
            processors: who wants one of them.
        """
        self.over, self.goes_on_ps, self.busy_ps = False, NEVER_PS, 0
        self._loop, self._zone, self._memory, self._stream, self._worker = loop, guest.zone, memory, stream, worker
        self._tell, self._costs, self._shared, self._processors = tell, costs, shared, processors
        self._in_flight = guest.in_flight
        self._work = [stream.operations_of(vcpu) for vcpu in range(len(costs))]
        self._firsts = np.cumsum([0, *(len(work.operations) for work in self._work)])[:-1]
        self._rows = np.zeros((len(costs), VCPU_COLUMNS), np.int64)
        self._rows[:, CURSOR] = 1
        self._slots = np.full(stream.slot_firsts[-1], -1, np.int64)
        self._operations = np.concatenate([work.operations for work in self._work])
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
        loop, stream, in_flight, until_s = self._loop, self._stream, self._in_flight, 0.0
        for number, stretch in enumerate(stream.stretches):
            mark, until_s = stretch.mark, stretch.until_s
            self._start_clock(stretch.from_s, until_s)
            if mark.first < stretch.end:
                yield from self._sleep_until(float(stream.at_s[mark.first]))
            self._tell(PhaseBegan(mark.name, mark.burst, mark.eats, loop.now_s))
            self._load(number, stretch)
            yield from loop.wait_for(self._all_done, lambda: not unfinished(self._rows))
            allocated = stream.allocated_bytes(mark.first, stretch.end)
            behind_s = int(self._rows[:, BEHIND_PS].max()) / PS_PER_S
            self._tell(PhaseEnded(mark.burst, mark.eats, allocated, loop.now_s, behind_s))
            if mark.settle:
                settle_max_ps = round(SETTLE_MAX_S * PS_PER_S)
                yield from self._look_until(lambda: self._worker.at_rest and in_flight.at_rest, settle_max_ps)
        self._start_clock(until_s, stream.end_s)
        yield from self._sleep_until(stream.end_s)
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
        outcome = run_vcpus(
            self._zone.words,
            self._zone.pages,
            self._memory.address,
            self._rows,
            self._operations,
            self._due_ps,
            self._slots,
            self._costs_now(),
            self._shared,
            until_ps,
        )
        self.goes_on_ps = self._shared.item(NEXT_PS)
        self.busy_ps += self._processors.worked_ps(self._shared.item(BUSY_PS))
        self._shared[BUSY_PS] = 0
        if outcome == TIME_UP:
            return False
        self._stopped(int(outcome), self._shared.item(WHO))
        return True

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

    def _load(self, number: int, stretch: Stretch) -> None:
        """Have each vCPU run its operations of one stretch, each when it is due."""
        for row, work, first in zip(self._rows, self._work, self._firsts, strict=True):
            begin = int(work.ends[number - 1]) if number else 0
            end = int(work.ends[number])
            due_ps = np.rint(work.due_s[begin:end] * PS_PER_S).astype(np.int64) + self._zero_ps
            self._due_ps[first + begin : first + end] = due_ps
            row[CURSOR], row[END] = first + begin, first + end
            row[FROM_PS], row[BEHIND_PS] = self._zero_ps + round(stretch.from_s * PS_PER_S), 0
        self._rows[:, CLOCK_PS] = self._loop.now_ps
        self._count()

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
