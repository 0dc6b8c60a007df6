"""A vCPU's loop, step by step: run what is due, drain when idle, report or find memory when it has to, and go on.

As in worker.py a step does its work, names the step that comes next, and says what is to be waited for before that. The
live machine runs the steps of each vCPU in a thread (machine/live/vcpu_thread.py), and the explorer in every order
(explorer/vcpu.py). The simulated machine runs all vCPUs in one kernel (machine/simulated/vcpu.py) by the same rules
(`next_act`, `drain_idle` and `wanted` of vcpu.py), and one that stops there takes the steps of a `StoppedVcpu`
(machine/simulated/guest.py).
"""

from typing import NamedTuple, Protocol

from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.in_flight import InFlight
from pagetide.guest.vcpu import (
    ACT_END,
    ACT_RUN,
    ACT_SLEEP,
    BAD_FREE,
    DONE,
    HOST_WANTED,
    IDLE_S,
    NO_MEMORY,
    SLOT_WANTED,
    drain_idle,
    next_act,
    note_false_oom,
)
from pagetide.guest.worker import Reporting, Steps, Wait


class OutOfMemoryError(Exception):
    """An allocation failed although nothing was isolated: the guest is too small for its workload."""


class NextOperation(Protocol):
    """The operation at which a vCPU stopped."""

    @property
    def order(self) -> int:
        """Of its block."""

    def give_up(self) -> None:
        """Go on without the block that it was to allocate."""


class Operations(NextOperation, Protocol):
    """All that a vCPU is to run for now."""

    @property
    def left(self) -> int:
        """How many are left."""

    @property
    def due_s(self) -> float:
        """When the next one is due, if one is left."""

    def run_due(self, now_s: float) -> int:
        """Run those that are due; why the vCPU stopped, a constant of vcpu.py."""


class Relief(Protocol):
    """What gives pages back to an allocation that fails; Balloon says what it does."""

    def deflate_on_oom(self, order: int) -> int:
        """Give pages back at once; how many."""


class Surroundings(NamedTuple):
    """What all vCPUs of a guest work with.

    Attributes:
        zone: the guest's memory.
        reporting: who reports.
        in_flight: what of the free memory the host has at the moment.
        waits_before_oom: whether an allocation that fails waits for what is out; otherwise it counts as a false OOM,
            and the guest goes on without the block.
        relief: what gives pages back to an allocation that fails; None if nothing does.
    """

    zone: Zone
    reporting: Reporting
    in_flight: InFlight
    waits_before_oom: bool = True
    relief: Relief | None = None


class StoppedVcpu(Steps):
    """What a vCPU does about it when it stopped.

    Attributes:
        vcpu: its number.
        waits_before_oom: as of its guest. Only then a wait for MEMORY counts as one for the host.
        seen: how much had come back when its last operations began.
        relieved_pages: how much the balloon gave back for the operation that failed.
        then: the step that follows when the worker is woken.
    """

    def __init__(self, vcpu: int, guest: Surroundings, next_operation: NextOperation) -> None:
        """Be this vCPU of a guest."""
        self.vcpu, self.words, self.pages = vcpu, guest.zone.words, guest.zone.pages
        self.reporting, self.in_flight, self.next_operation = guest.reporting, guest.in_flight, next_operation
        self.waits_before_oom, self.relief = guest.waits_before_oom, guest.relief
        self.seen = self.relieved_pages = 0
        self.step = self.then = "go_on"

    @property
    def is_back(self) -> bool:
        """Whether something came back since its operations began."""
        return self.in_flight.ended != self.seen

    def go_on(self, now_s: float) -> Wait:
        """There is nothing to be done about it any more."""
        return Wait.OVER

    def begin(self, now_s: float) -> Wait:
        """Look how much has come back: what does after this may be what an allocation lacked."""
        self.seen, self.relieved_pages = self.in_flight.ended, 0
        self.step = "run"
        return Wait.NOTHING

    def stopped(self, outcome: int) -> None:
        """It stopped; see why, and whether the worker is to be woken, out of the zone's lock."""
        assert outcome != BAD_FREE, f"vCPU {self.vcpu} freed what it did not hold"
        then = _THEN.get(outcome, "go_on")
        if outcome != DONE and take_wake(self.words):
            self.step, self.then = "wake", then
        else:
            self.step = then

    def wake(self, now_s: float) -> Wait:
        """Wake the worker."""
        self.reporting.wake()
        self.step, self.then = self.then, "go_on"
        return Wait.NOTHING

    def report(self, now_s: float) -> Wait:
        """Report what its frees filled, and wait for the host: with a synchronous design alone."""
        self.step = "go_on"
        return Wait.REPORT

    def relieve(self, now_s: float) -> Wait:
        """An allocation failed: have the balloon give pages back, if there is one that does."""
        if self.relief is not None:
            self.relieved_pages = self.relief.deflate_on_oom(self.next_operation.order)
        self.step = "go_on" if self.relieved_pages > 0 else "run_out"
        return Wait.NOTHING

    def run_out(self, now_s: float) -> Wait:
        """It failed truly, or because blocks are out for reporting (S15, invariant 5).

        Raises:
            OutOfMemoryError: the guest is too small for its workload.
        """
        begun = self.in_flight.begun  # first: a relief in between counts as ended, and another look will find it
        if begun == self.in_flight.ended == self.seen:
            raise OutOfMemoryError("it ran out of memory: its workload needs more than it has")
        if not self.waits_before_oom and self.in_flight.pages_out >= 1 << self.next_operation.order:
            note_false_oom(self.words)
            self.next_operation.give_up()
            self.step = "go_on"
            return Wait.NOTHING
        self.step = "go_on"  # if too little is out, whether memory ran out shows when it is back
        return Wait.MEMORY


_THEN = {HOST_WANTED: "report", NO_MEMORY: "relieve", SLOT_WANTED: "await_other"}
"""The step that follows an outcome, other than `go_on`."""


class VcpuLoop(StoppedVcpu):
    """A vCPU from one stop to the next as well. It is over when nothing is left; with more to run it goes on.

    Attributes:
        until_s: when a DUE ends.
        drained: whether it drained its per-CPU list since its last operation.
    """

    def __init__(self, vcpu: int, guest: Surroundings, operations: Operations) -> None:
        """Be this vCPU of a guest, with nothing run yet."""
        super().__init__(vcpu, guest, operations)
        self.operations = operations
        self.until_s, self.drained = 0.0, False

    def go_on(self, now_s: float) -> Wait:
        """See what comes next."""
        left = self.operations.left
        if left > 0:
            self.until_s = self.operations.due_s
        act = next_act(left, self.until_s - now_s, IDLE_S, self.drained)
        if act == ACT_SLEEP:
            return Wait.DUE
        if act == ACT_END:
            return Wait.OVER
        self.step = "begin" if act == ACT_RUN else "drain"
        return Wait.NOTHING

    def run(self, now_s: float) -> Wait:
        """Run what is due."""
        self.drained = False
        outcome = self.operations.run_due(now_s)
        self.stopped(outcome)
        return Wait.NOTHING

    def await_other(self, now_s: float) -> Wait:
        """Another vCPU is late with what this one frees or fills; look again soon."""
        self.until_s, self.step = now_s, "go_on"
        return Wait.DUE

    def drain(self, now_s: float) -> Wait:
        """Keep no pages to itself while idle."""
        self.drained = True
        outcome = drain_idle(self.words, self.pages, self.vcpu)
        self.stopped(outcome)
        return Wait.NOTHING
