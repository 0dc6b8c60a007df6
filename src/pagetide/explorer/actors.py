"""Who acts in an explored machine: two vCPUs, the reporter, the device, a clock, and who switches the design.

Each is a few *stretches*: generators between which nothing but the actor's attributes is remembered, so that an actor
can be set back to any point by running one stretch again. What they call is the real code: the steps of guest/worker.py
are stretches as they are, and each wait between two of them is one. A stretch returns the name of the next one, or
None at the end.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pagetide.explorer.ground import system_call
from pagetide.explorer.source import TOUCH, UNTIL, ExploredError, Pause
from pagetide.guest.allocator.operation import FREE
from pagetide.guest.allocator.zone_layout import TICK
from pagetide.guest.vcpu import BAD_FREE, DONE, HOST_WANTED, NO_MEMORY
from pagetide.guest.worker import Wait
from pagetide.memory.frame_table import GUEST_TICK

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

Stretch = Generator[Pause, None, str | None]

_TOUCH = Pause(TOUCH)


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

    def stretch(self, name: str) -> Stretch:
        """Begin this stretch."""
        made: Stretch = getattr(self, name)()
        return made


class Reporter(Actor):
    """Who runs the steps of guest/worker.py: their waits, and what follows them.

    Attributes:
        steps: a Reporter of the explored package.
        then: the stretch that follows when there is no further step.
        notified: it was told to look again at what it waits for.
    """

    def __init__(self, machine: "ExploredMachine", name: str, steps: Any) -> None:
        """Join the machine."""
        super().__init__(machine, name)
        self.steps = steps
        self.then = "begin"
        self.notified = False

    def stretch(self, name: str) -> Stretch:
        """Begin this stretch: a step, or one of its own."""
        return super().stretch(name) if hasattr(self, name) else self._step(name)

    def _step(self, name: str) -> Stretch:
        wait = yield from self.machine.coroutine(getattr(self.steps, name)(0.0))
        if wait == Wait.OVER:
            return self.then
        return {Wait.WAKE: "wait_wake", Wait.TURN: "wait_turn", Wait.CALL: "wait_call"}.get(wait, str(self.steps.step))

    def wait_turn(self) -> Stretch:
        """Take the turn, or sleep until it may be free."""
        if not self.steps.take_turn():
            self.notified = False
            return "sleep_for_turn"
        yield from ()
        return str(self.steps.step)

    def sleep_for_turn(self) -> Stretch:
        """Somebody else has it."""
        yield Pause(UNTIL, ready=lambda: self.notified)
        return "wait_turn"

    def wait_call(self) -> Stretch:
        """Sleep until the call."""
        glue = self.machine.glue
        yield Pause(UNTIL, ready=lambda: glue.called)
        glue.called = False
        return str(self.steps.step)


class Worker(Reporter):
    """The guest's reporting worker, whose first step was run."""

    def __init__(self, machine: "ExploredMachine", name: str, steps: Any) -> None:
        """Join the machine."""
        super().__init__(machine, name, steps)
        self.first = str(steps.step)

    def wait_wake(self) -> Stretch:
        """Sleep until the design is due, or somebody rings. When something is due, the time for it comes."""
        yield Pause(UNTIL, ready=lambda: self.machine.glue.rung or self.is_due)
        self.machine.glue.rung = False
        self.machine.let_time_pass()
        return str(self.steps.step)

    @property
    def is_due(self) -> bool:
        """Whether the time comes for which it rests."""
        return self.steps.until_s is not None


class Faults(Actor):
    """Who switches the design off and on again, and gives the queue room at last; at any time."""

    settles = False

    def begin(self) -> Stretch:
        """Begin with what the scenario has."""
        yield from ()
        return "switch_off" if self.machine.scenario.switches else "give_room"

    def switch_off(self) -> Stretch:
        """Switch the design off."""
        yield from self.machine.reporting.switch(False)
        return "switch_on" if self.machine.scenario.flips else "wait_off"

    def wait_off(self) -> Stretch:
        """Wait until it is off."""
        yield Pause(UNTIL, ready=lambda: not self.machine.reporting.on)
        return "switch_on"

    def switch_on(self) -> Stretch:
        """Switch it on again."""
        yield from self.machine.reporting.switch(True)
        return None

    def give_room(self) -> Stretch:
        """The queue is full no longer."""
        yield _TOUCH
        self.machine.reporting.ring_full = False
        return None


class Vcpu(Reporter):
    """A vCPU with its share of the workload (`GuestRun`).

    Attributes:
        cursor: index of its next operation.
        slots: its blocks.
        seen: batches that had ended when its operation began.
        allocating: whether that counts, since it is in an operation that may find no memory.
        waits: whether it waits for another to end.
    """

    settles = False

    def __init__(self, machine: "ExploredMachine", vcpu: int, operations: list[dict[str, int]]) -> None:
        """Take the operations that this vCPU runs."""
        super().__init__(machine, f"vCPU {vcpu}", machine.reporter())
        self.vcpu, self.operations = vcpu, operations
        self.cursor = 0
        self.slots = tuple([-1] * (1 + max((o["slot"] for o in operations), default=0)))
        self.seen = 0
        self.allocating = self.waits = self.ended = False
        self.then = "go_on"
        self.first = "begin" if operations else "end"

    def begin(self) -> Stretch:
        """Run the next operation."""
        machine = self.machine
        if machine.scenario.may_run_out:
            yield _TOUCH
            self.seen, self.allocating = machine.ended, True
        slots, cursor = list(self.slots), [self.cursor]
        operation = self.operations[self.cursor]
        if operation["kind"] == FREE:
            machine.note_freed(slots[operation["slot"]], operation["order"])
        outcome = yield from machine.run_operations(
            machine.words, machine.pages, 0, self.vcpu, self.operations, slots, cursor, self.cursor + 1
        )
        self.slots, self.cursor = tuple(slots), cursor[0]
        if outcome != NO_MEMORY:
            self.allocating = False
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
            yield from machine.reporting.wake()
        return self.then

    def report(self) -> Stretch:
        """Report, and wait for the host: `sync` alone."""
        if not self.machine.design.synchronous:
            raise ExploredError(f"{self.name} waits for the host")
        yield from ()
        self.then = "go_on"
        return "next_turn"

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
        machine = self.machine
        if machine.begun == machine.ended == self.seen:
            raise ExploredError(f"a false OOM: {self.name} fails to allocate, and nothing is out for reporting")
        if not machine.scenario.waits_before_oom:
            raise ExploredError(f"a false OOM: {self.name} fails to allocate, and does not wait for what is out")
        return "wait_memory"

    def wait_memory(self) -> Stretch:
        """Go on once something came back, or sleep until somebody says that it may have."""
        yield _TOUCH
        self.waits = self.machine.ended == self.seen
        self.notified = False
        self.allocating = self.waits
        return "sleep_for_memory" if self.waits else "go_on"

    def sleep_for_memory(self) -> Stretch:
        """Nothing came back yet; where nobody says so, it looks every so often."""
        machine = self.machine
        yield Pause(UNTIL, ready=lambda: self.notified or (machine.looks_again and machine.ended != self.seen))
        return "wait_memory"

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
