"""The reporting worker, step by step: what drives a design and its driver, without a clock, a thread or a descriptor.

A step does its work, names the step that comes next, and says what is to be waited for before that. Whoever runs the
steps executes the waits: the live machine with threads and poll (machine/live/guest_worker.py), the simulated one in
virtual time (machine/simulated/worker.py), and the explorer in every order (explorer/actors.py). Who waits for memory
or for the worker's rest is told by `tell`.

Besides the worker, vCPUs of a synchronous design report, each with a `Reporter` of its own: one after the other, by
turns.
"""

import abc
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from pagetide.guest.reporting.design import Batch, Design
from pagetide.virtio.balloon import Queue


class Wait(IntEnum):
    """What is to be waited for before the next step."""

    NOTHING = 0
    """It follows at once."""
    WAKE = 1
    """Somebody rings, or has rung since the last such wait, or `until_s` comes."""
    TURN = 2
    """Nobody reports, so that `take_turn` holds."""
    CALL = 3
    """The device calls, or has called since the last such wait."""
    ANSWER = 4
    """The device answers a message about its configuration, where that takes time."""
    OVER = 5
    """There is no next step for now."""
    DUE = 6
    """`until_s` comes."""
    REPORT = 7
    """A vCPU has reported, with a `Reporter` of its own."""
    MEMORY = 8
    """Something came back that was out when an allocation failed, so that `is_back` holds."""


class ReportDriver(Protocol):
    """What of a driver the worker needs; BalloonDriver says what each does."""

    def submit(self, batch: Batch, queue: Queue) -> None:
        """Give these blocks to the host, on this virtqueue."""

    def completed(self) -> bool:
        """Whether the host has dealt with them."""

    def arm(self) -> bool:
        """Ask for a call when it has; whether it may have already."""


class Reporting(abc.ABC):
    """A design, its driver, and what all who report with it share, and who wakes them.

    Attributes:
        design: decides what is reported, and when.
        driver: reports it; None with a design that never reports.
        note_reported: is told of each batch that is given to the host, unless it is only told of what was deflated.
        on: whether the design is started.
        wanted_on: whether it is to be.
        was_woken: the free path raised WAKE, and the design was not told yet.
        resting: the worker waits, and its design is at rest.
        driving: somebody has the turn.
        stopping: nothing is to be begun any more, and no call to be waited for.
        ring_full: a fault: the queue has no room, and a report fails at once.
        batches_begun: how many times a batch was asked for, counted before anything is isolated.
        batches_done: how many of those are over, counted when everything is back in the allocator.
    """

    def __init__(
        self, design: Design, driver: ReportDriver | None, note_reported: Callable[[Batch], None] | None = None
    ) -> None:
        """Take the design, which the worker's first step starts."""
        self.design, self.driver, self.note_reported = design, driver, note_reported
        self.on, self.wanted_on = False, True
        self.was_woken = self.resting = self.driving = self.stopping = self.ring_full = False
        self.batches_begun = self.batches_done = 0

    @abc.abstractmethod
    def ring(self) -> None:
        """End the worker's WAKE, or its next one."""

    @abc.abstractmethod
    def tell(self) -> None:
        """Have everybody look again who waits for a turn, for memory that is out, or for the worker's rest."""

    def wake(self) -> None:
        """The free path raised WAKE."""
        self.was_woken = True
        self.ring()

    def switch(self, on: bool) -> None:
        """Switch the design off, or on again, as soon as no batch is out (S14)."""
        self.wanted_on = on
        self.ring()

    @property
    def at_rest(self) -> bool:
        """Whether the design is on, and wants nothing until something is freed; from any thread."""
        idle = self.resting and self.design.at_rest
        return idle and not self.was_woken and self.on and self.wanted_on


class Steps:
    """Work that waits between its steps.

    Attributes:
        step: the name of the next step.
    """

    step: str

    def proceed(self, now_s: float) -> Wait:
        """Run the next step; what is to be waited for before the one after it."""
        wait: Wait = getattr(self, self.step)(now_s)
        return wait


class Reporter(Steps):
    """Reports until the design has no batch: what a synchronous vCPU does, and the worker between two rests.

    Attributes:
        batch: the blocks that are out; None if none are.
        reported: whether the host has dealt with them.
        has_turn: whether it is this one's turn.
    """

    def __init__(self, reporting: Reporting) -> None:
        """Begin with the wait for its turn."""
        self.reporting = reporting
        self.step = "next_turn"
        self.batch: Batch | None = None
        self.reported = self.has_turn = False

    def take_turn(self) -> bool:
        """Take the turn if nobody has it; only one may try at a time."""
        if self.reporting.driving:
            return False
        self.reporting.driving = self.has_turn = True
        return True

    def end_turn(self) -> None:
        """Leave it to whoever waits for it."""
        self.reporting.driving = self.has_turn = False
        self.reporting.tell()

    def next_turn(self, now_s: float) -> Wait:
        """Wait until it is this one's turn."""
        if self.reporting.stopping:
            self.step = "finish"
            return Wait.NOTHING
        self.step = "look_at_switch"
        return Wait.TURN

    def look_at_switch(self, now_s: float) -> Wait:
        """See whether the design is to be switched off or on, now that no batch is out."""
        wanted_on = self.reporting.wanted_on  # looked at once: it may change at any time
        if wanted_on:
            self.step = "ask" if self.reporting.on else "switch_on"
        else:
            self.step = "switch_off" if self.reporting.on else "stay_off"
        return Wait.NOTHING

    def switch_off(self, now_s: float) -> Wait:
        """Switch the design off."""
        self.reporting.design.stop()
        self.reporting.on = False
        self.step = "stay_off"
        return Wait.NOTHING

    def switch_on(self, now_s: float) -> Wait:
        """Have the design begin anew."""
        self.reporting.design.start(now_s)
        self.reporting.on = True
        self.step = "ask"
        return Wait.NOTHING

    def stay_off(self, now_s: float) -> Wait:
        """Leave a design alone that is off."""
        self.end_turn()
        self.step = "finish"
        return Wait.NOTHING

    def ask(self, now_s: float) -> Wait:
        """Ask the design for a batch."""
        self.reporting.batches_begun += 1
        self.batch = self.reporting.design.next_batch(now_s)
        self.step = "came_back" if self.batch is None else "submit"
        return Wait.NOTHING

    def submit(self, now_s: float) -> Wait:
        """Give it to the host, unless the queue is full."""
        reporting, batch = self.reporting, self.batch
        assert batch is not None
        self.reported = False
        if reporting.ring_full:
            self.step = "hand_back"
            return Wait.NOTHING
        assert reporting.driver is not None
        queue = reporting.design.queue
        reporting.driver.submit(batch, queue)
        if reporting.note_reported is not None and queue is not Queue.DEFLATE:
            reporting.note_reported(batch)  # while the host is at it
        self.step = "look"
        return Wait.NOTHING

    def look(self, now_s: float) -> Wait:
        """See whether the host has dealt with it."""
        assert self.reporting.driver is not None
        self.reported = self.reporting.driver.completed()
        self.step = "hand_back" if self.reported or self.reporting.stopping else "arm"
        return Wait.NOTHING

    def arm(self, now_s: float) -> Wait:
        """Ask for a call, and wait for it unless the host is done by now."""
        assert self.reporting.driver is not None
        done = self.reporting.driver.arm()
        self.step = "look"
        return Wait.NOTHING if done else Wait.CALL

    def hand_back(self, now_s: float) -> Wait:
        """Hand the batch back to the design."""
        assert self.batch is not None
        self.reporting.design.done(self.batch, self.reported, now_s)
        self.step = "came_back"
        return Wait.NOTHING

    def came_back(self, now_s: float) -> Wait:
        """Count it, and tell who waits for memory or for a turn."""
        self.reporting.batches_done += 1
        self.end_turn()
        self.step = "finish" if self.batch is None else "next_turn"
        self.batch = None
        return Wait.NOTHING

    def finish(self, now_s: float) -> Wait:
        """Leave to the worker what is due later."""
        if self.reporting.design.due_s is not None:
            self.reporting.ring()
        self.step = "next_turn"
        return Wait.OVER


class Worker(Reporter):
    """The worker: rests until its design is due or somebody wakes it, and reports.

    Attributes:
        until_s: when a WAKE ends by itself; None if it does not.
    """

    def __init__(self, reporting: Reporting) -> None:
        """Begin by starting the design."""
        super().__init__(reporting)
        self.step = "start"
        self.until_s: float | None = None

    def start(self, now_s: float) -> Wait:
        """Start the design."""
        self.reporting.design.start(now_s)
        self.reporting.on = True
        self.step = "rest"
        return Wait.NOTHING

    def rest(self, now_s: float) -> Wait:
        """Rest until the design is due, or somebody rings."""
        reporting = self.reporting
        if reporting.stopping:
            return Wait.OVER
        self.until_s = reporting.design.due_s
        if reporting.design.at_rest:
            reporting.resting = True
            reporting.tell()
        self.step = "wake_up"
        return Wait.WAKE

    def wake_up(self, now_s: float) -> Wait:
        """Tell a design that is on what woke the worker."""
        reporting = self.reporting
        reporting.resting = False
        woken = reporting.was_woken
        if woken:  # otherwise it stays as it is: who wakes the worker from now on rings for the next time
            reporting.was_woken = False
        if woken and reporting.on:
            reporting.design.woken(now_s)
        self.step = "next_turn"
        return Wait.NOTHING

    def finish(self, now_s: float) -> Wait:
        """Rest again."""
        self.step = "rest"
        return Wait.NOTHING
