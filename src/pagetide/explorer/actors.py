"""Who acts in an explored machine besides two vCPUs: the reporter, the device, a clock, and who switches the design.

Each is a few *stretches*: generators between which nothing but the actor's attributes is remembered, so that an actor
can be set back to any point by running one stretch again. What they call is the real code: the steps of guest/worker.py
and guest/vcpu_loop.py are stretches as they are, and each wait between two of them is one. A stretch returns the name
of the next one, or None at the end.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from pagetide.explorer.ground import system_call
from pagetide.explorer.source import TOUCH, UNTIL, Pause
from pagetide.guest.allocator.zone_layout import TICK
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
