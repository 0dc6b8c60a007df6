"""Who acts in an explored machine whose host takes frames by itself (`shared`): that host, and who kills it."""

from typing import TYPE_CHECKING

import numpy as np

from pagetide.explorer.actors import Actor, Stretch
from pagetide.explorer.ground import HostKilledError
from pagetide.explorer.source import TOUCH, UNTIL, Pause
from pagetide.host.memory.ledger import ACCOUNT_WORDS
from pagetide.host.memory.ranges import RANGE_COLUMNS

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

_TOUCH = Pause(TOUCH)


class Taker(Actor):
    """The host that takes frames from the table (`FrameTaker`), pass after pass.

    Attributes:
        picked: the frames of the batch.
        count: how many there are.
    """

    def __init__(self, machine: "ExploredMachine", name: str) -> None:
        """Join the machine."""
        super().__init__(machine, name)
        self.picked = np.zeros(machine.scenario.settings.capacity, np.int64)
        self.count = np.zeros(1, np.int64)

    def begin(self) -> Stretch:
        """Wait until there is something to take."""
        yield Pause(UNTIL, ready=lambda: self.machine.offers_frames() or self.machine.glue.killed)
        return "take_over" if self.machine.glue.killed else "take"

    def take(self) -> Stretch:
        """Take the first batch of a pass."""
        machine = self.machine
        ranges, ledger = np.zeros((len(self.picked), RANGE_COLUMNS), np.int64), np.zeros(ACCOUNT_WORDS, np.int64)
        try:
            yield from machine.take_batch(
                machine.table, 0, machine.frames, machine.regions, self.picked, self.count, ranges, 0, ledger
            )
        except HostKilledError:
            return "take_over"
        self.ended()
        return "begin"

    def ended(self) -> None:
        """A batch is over; who waits for memory looks at the table every so often (`TakenByHost`)."""
        self.picked[:] = self.count[:] = 0

    def take_over(self) -> Stretch:
        """Be the host that comes after the one that was killed."""
        machine = self.machine
        machine.glue.killed = False
        yield from machine.recover(machine.table, machine.frames)
        self.ended()
        return "begin"


class Killer(Actor):
    """Who kills the host's process, once, at any time."""

    settles = False

    def begin(self) -> Stretch:
        """Do it."""
        yield _TOUCH
        self.machine.glue.killed = True
        return None
