"""Who acts in an explored machine with a balloon besides device and vCPUs: its worker, and the host's policy.

The worker is guest/balloon_worker.py. The timer at which it looks at what the host wants is left out as long as it
would find nothing to do, or the search would never come to rest.
"""

from typing import TYPE_CHECKING

from pagetide.explorer.actors import Actor, Stretch, Worker
from pagetide.explorer.source import TOUCH, ExploredError, Pause
from pagetide.guest.allocator.balloon_pages import RELIEFS, UNTOLD_PAGES
from pagetide.guest.allocator.zone_layout import BALLOON_PAGES, HELD, RECORD_WORDS, STATE, TYPE_MASK

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

_TOUCH = Pause(TOUCH)


class Policy(Actor):
    """The host's policy (`BalloonPolicy`): wants one number of pages after the other, at any time.

    Where all settles before the vCPUs begin, it wants the first one at once.

    Attributes:
        moves: how many targets it has set.
    """

    settles = False

    def __init__(self, machine: "ExploredMachine", name: str) -> None:
        """Join the machine."""
        super().__init__(machine, name)
        self.moves = 0
        if machine.scenario.settled:
            self._move()

    def begin(self) -> Stretch:
        """Set the next target."""
        if self.moves == len(self.machine.scenario.targets):
            return None
        yield _TOUCH
        self._move()
        return "begin"

    def _move(self) -> None:
        self.machine.glue.target_pages = self.machine.scenario.targets[self.moves]
        self.moves += 1


class BalloonWorker(Worker):
    """The worker of a guest with a balloon, whose timer ends its rest when it has something to do."""

    @property
    def is_due(self) -> bool:
        """Whether the balloon is not as wanted, the host does not know all, or a vCPU waits for a pass to end."""
        machine = self.machine
        held_pages = machine.words[BALLOON_PAGES]
        known = held_pages == self.steps.told_pages == machine.glue.target_pages
        return not known or untold_pages(machine) > 0 or any(vcpu.waits for vcpu in machine.vcpus)


class Config:
    """The driver's way to the device's configuration."""

    def __init__(self, machine: "ExploredMachine") -> None:
        """Belong to this machine."""
        self._machine = machine

    def num_pages(self) -> int:
        """What the host's policy wants."""
        return self._machine.glue.target_pages

    def set_actual(self, nr_pages: int) -> None:
        """Who is told remembers it."""


def untold_pages(machine: "ExploredMachine") -> int:
    """Pages that came out of the balloon and of which the host does not know yet."""
    return int(vars(machine.design)["_counts"][UNTOLD_PAGES])


def forget_what_nobody_sees(machine: "ExploredMachine") -> None:
    """Of two states that differ only behind the end of a stack or a batch, and in what is only counted, make one."""
    design = vars(machine.design)
    design["_counts"][RELIEFS] = 0
    design["_untold"][untold_pages(machine) :] = 0
    if machine.reporting.batches_begun == machine.reporting.batches_done:
        design["_batch"][:] = 0


def check_held(machine: "ExploredMachine") -> None:
    """Check that the host was told of each page that the balloon holds.

    Raises:
        ExploredError: it was not.
    """
    for page, inflated in enumerate(machine.ram.inflated):
        if machine.pages[page * RECORD_WORDS + STATE] & TYPE_MASK == HELD and not inflated:
            raise ExploredError(f"page {page} is held in the balloon, and the host was not told")


def check_end(machine: "ExploredMachine") -> None:
    """Check that the balloon is as the host wants it, and that the host knows what is in it.

    Raises:
        ExploredError: it is not.
    """
    held_pages, wanted_pages = machine.words[BALLOON_PAGES], machine.glue.target_pages
    if held_pages != wanted_pages:
        raise ExploredError(f"the balloon holds {held_pages} pages for good, and the host wants {wanted_pages}")
    for page, inflated in enumerate(machine.ram.inflated):
        if inflated and machine.pages[page * RECORD_WORDS + STATE] & TYPE_MASK != HELD:
            raise ExploredError(f"page {page} is in the balloon for the host alone")
