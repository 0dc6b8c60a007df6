"""Who acts in an explored machine: two vCPUs, the reporter, the device, and a clock.

Each is a few *stretches*: generators between which nothing but the actor's attributes is remembered, so that an actor
can be set back to any point by running one stretch again. What they call is the real code; what is written here is
only the glue of guest_run.py, guest_worker.py and host/guest/attached.py, step by step. A stretch returns the
name of the next one, or None at the end.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

from pagetide.explorer.ground import system_call
from pagetide.explorer.source import TOUCH, UNTIL, ExploredError, Pause
from pagetide.explorer.state import Handed
from pagetide.guest.allocator.operation import FREE
from pagetide.guest.allocator.zone_layout import TICK
from pagetide.guest.vcpu import BAD_FREE, DONE, HOST_WANTED, NO_MEMORY
from pagetide.memory.frame_table import BEGUN, ENDED, GUEST_TICK

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

Stretch = Generator[Pause, None, str | None]

_TOUCH = Pause(TOUCH)

# Whether the design is on, where it is switched (S14).
ON = 0
ON_UNTIL_REPORTED = 1
OFF_WANTED = 2
OFF = 3
STARTING = 4


class Actor:
    """One of them.

    Attributes:
        settles: whether it acts before the vCPUs begin, where they do so only when all has settled.
        name: what a trace calls it.
        first: its first stretch.
    """

    settles = True

    def __init__(self, machine: "ExploredMachine", name: str) -> None:
        """Join the machine."""
        self.name, self.first = name, "begin"
        self.machine = machine


class Reporter(Actor):
    """Reports batch after batch, one at a time (`GuestWorker.report_all`).

    Attributes:
        batch: the batch that is out.
        then: the stretch that follows when there is no further batch.
    """

    def __init__(self, machine: "ExploredMachine", name: str) -> None:
        """Join the machine."""
        super().__init__(machine, name)
        self.batch: Handed | None = None
        self.then = "begin"

    def next(self) -> Stretch:
        """Ask the design for a batch."""
        glue = self.machine.glue
        if self.machine.design.synchronous:
            yield Pause(UNTIL, ready=lambda: not glue.driving)
        glue.driving = True
        if self.machine.scenario.may_run_out:
            yield _TOUCH  # the count of batches begun
        glue.out += 1
        batch = None
        if glue.switch == OFF_WANTED:
            yield from self.machine.coroutine(self.machine.design.stop())
            glue.switch = OFF
        elif glue.switch != OFF:
            batch = yield from self.machine.design.next_batch(0.0)
        self.batch = None if batch is None else Handed(batch)
        if batch is None:
            return "came_back"
        return "fail" if glue.failures else "submit"

    def fail(self) -> Stretch:
        """There is no room in the queue: the batch goes back unreported."""
        assert self.batch is not None
        self.machine.glue.failures -= 1
        yield from self.machine.design.done(self.batch.blocks, False, 0.0)
        return "came_back"

    def submit(self) -> Stretch:
        """Put it into the ring, and kick."""
        assert self.batch is not None
        self.machine.glue.at_the_ring = True
        yield from self.machine.driver.submit(self.batch.blocks, self.machine.design.queue)
        return "completed"

    def completed(self) -> Stretch:
        """Look whether the host has dealt with it."""
        done = yield from self.machine.driver.completed()
        self.machine.glue.at_the_ring = not done
        return "done" if done else "arm"

    def arm(self) -> Stretch:
        """Ask for a call."""
        ready = yield from self.machine.driver.arm()
        return "completed" if ready else "wait"

    def wait(self) -> Stretch:
        """Sleep until the call."""
        glue = self.machine.glue
        yield Pause(UNTIL, ready=lambda: glue.called)
        glue.called = False
        return "completed"

    def done(self) -> Stretch:
        """Hand the batch back to the design."""
        assert self.batch is not None
        yield from self.machine.design.done(self.batch.blocks, True, 0.0)
        if self.machine.glue.switch == ON_UNTIL_REPORTED:
            self.machine.glue.switch = OFF_WANTED
        return "came_back"

    def came_back(self) -> Stretch:
        """Tell who waits for memory."""
        yield _TOUCH
        glue, more = self.machine.glue, self.batch is not None
        self.batch = None
        glue.out -= 1
        glue.driving = False
        for vcpu in self.machine.vcpus:
            vcpu.came_back_since = vcpu.allocating
        return "next" if more else self.then


class Worker(Reporter):
    """The guest's reporting worker (`GuestWorker`)."""

    def begin(self) -> Stretch:
        """Sleep until the design is due, or somebody wakes it. When something is due, the time for it comes."""
        machine, glue = self.machine, self.machine.glue
        yield Pause(
            UNTIL, ready=lambda: glue.woken or machine.design.due_s is not None or glue.switch in (OFF_WANTED, OFF)
        )
        if glue.switch == OFF:
            return "switch_on"
        woken, glue.woken = glue.woken, False
        machine.let_time_pass()
        if woken:
            yield from machine.coroutine(machine.design.woken(0.0))
        return "next"

    def switch_on(self) -> Stretch:
        """Begin anew."""
        yield _TOUCH
        self.machine.glue.switch = STARTING
        yield from self.machine.coroutine(self.machine.design.start(0.0))
        self.machine.glue.switch = ON
        return "begin"


class Vcpu(Reporter):
    """A vCPU with its share of the workload (`GuestRun`).

    Attributes:
        cursor: index of its next operation.
        slots: its blocks.
        allocating: whether it is in an operation that may find no memory.
        came_back_since: whether a batch came back since its operation began.
        waits: whether it waits for that.
    """

    settles = False

    def __init__(self, machine: "ExploredMachine", vcpu: int, operations: list[dict[str, int]]) -> None:
        """Take the operations that this vCPU runs."""
        super().__init__(machine, f"vCPU {vcpu}")
        self.vcpu, self.operations = vcpu, operations
        self.cursor = 0
        self.slots = tuple([-1] * (1 + max((o["slot"] for o in operations), default=0)))
        self.came_back_since = self.allocating = self.waits = False
        self.ended = False
        self.then = "go_on"
        self.first = "begin" if operations else "end"

    def begin(self) -> Stretch:
        """Run the next operation."""
        machine = self.machine
        if machine.scenario.may_run_out:
            yield _TOUCH  # the count of batches done
            self.allocating = True
        slots, cursor = list(self.slots), [self.cursor]
        operation = self.operations[self.cursor]
        if operation["kind"] == FREE:
            machine.note_freed(slots[operation["slot"]], operation["order"])
        outcome = yield from machine.run_operations(
            machine.words, machine.pages, 0, self.vcpu, self.operations, slots, cursor, self.cursor + 1
        )
        self.slots, self.cursor = tuple(slots), cursor[0]
        if outcome != NO_MEMORY:
            self.came_back_since = self.allocating = False
        if outcome == BAD_FREE:
            raise ExploredError(f"{self.name} cannot free a block that it was given")
        if outcome == DONE and self.cursor < len(self.operations):
            return "begin"  # within one run of run_operations
        self.then = {HOST_WANTED: "report", NO_MEMORY: "out_of_memory"}.get(outcome, "go_on")
        return "pass_on_wake"

    def pass_on_wake(self) -> Stretch:
        """Wake the worker, if the free path asked for it."""
        machine = self.machine
        if (yield from machine.take_wake(machine.words)):
            machine.glue.woken = True
        return self.then

    def report(self) -> Stretch:
        """Report, and wait for the host: `sync` alone."""
        if not self.machine.design.synchronous:
            raise ExploredError(f"{self.name} waits for the host")
        yield from ()
        self.then = "go_on"
        return "next"

    def go_on(self) -> Stretch:
        """Run on, or go idle."""
        yield from ()
        self.then = "go_on"
        return "begin" if self.cursor < len(self.operations) else "idle"

    def out_of_memory(self) -> Stretch:
        """An allocation failed, and must not, for the workload fits: a batch is out that it waits for."""
        if not self.machine.scenario.may_run_out:
            raise ExploredError(f"{self.name} fails to allocate")
        yield _TOUCH
        if not self.may_wait():
            raise ExploredError(f"a false OOM: {self.name} fails to allocate, and nothing is out for reporting")
        if not self.machine.scenario.waits_before_oom:
            raise ExploredError(f"a false OOM: {self.name} fails to allocate, and does not wait for what is out")
        self.waits = True
        yield Pause(UNTIL, ready=lambda: self.came_back_since)
        self.came_back_since = self.allocating = self.waits = False
        return "go_on"

    def may_wait(self) -> bool:
        """Whether something is out that may come back, or has come back already."""
        machine = self.machine
        taking = machine.takes_frames and machine.table[BEGUN] != machine.table[ENDED]
        return machine.glue.out > 0 or taking or self.came_back_since

    def idle(self) -> Stretch:
        """Give back the per-CPU list, and pass on what that asked for."""
        machine = self.machine
        yield from machine.pcp_drain(machine.words, machine.pages, self.vcpu)
        wanted = yield from machine.host_wanted(machine.words, self.vcpu)
        self.then = "report" if wanted else "end"
        return "pass_on_wake"

    def end(self) -> Stretch:
        """Do nothing more."""
        yield from ()
        self.ended = True
        return None


class Clock(Actor):
    """Who keeps the zone's clock (`Zone.tick`). It stands still while nothing is about to cool."""

    def begin(self) -> Stretch:
        """Let it tick once."""
        machine = self.machine
        yield Pause(UNTIL, ready=machine.cools)
        machine.words[TICK] += 1
        machine.table[GUEST_TICK] = machine.words[TICK]
        return "begin"


class Device(Actor):
    """The host's end of the queues (`AttachedGuest`).

    Attributes:
        more: queues, a bit each, in which elements are waiting that no kick will announce.
        serves: the queue whose turn it is.
        idle: it sleeps.
    """

    def __init__(self, machine: "ExploredMachine", name: str) -> None:
        """Join the machine."""
        super().__init__(machine, name)
        self.more = self.serves = 0
        self.idle = False

    def begin(self) -> Stretch:
        """Sleep until the kick, unless there is more to do."""
        glue = self.machine.glue
        self.idle = not self.more
        yield Pause(UNTIL, ready=lambda: bool(glue.kicked | self.more))
        self.idle = False
        waiting = glue.kicked | self.more
        self.serves = (waiting & -waiting).bit_length() - 1
        glue.kicked &= ~(1 << self.serves)
        return "turn"

    def turn(self) -> Stretch:
        """Serve a queue."""
        machine, bit = self.machine, 1 << self.serves
        queue = machine.queues[self.serves].served
        turn = yield from queue.process(machine.regions, machine.scenario.elements_per_turn, 0)
        self.more = self.more | bit if turn.more else self.more & ~bit
        return "call" if turn.call else "begin"

    def call(self) -> Stretch:
        """Call the driver."""
        yield from system_call(self.machine.control)
        self.machine.glue.called = True
        return "begin"
