"""What a fleet uses, on one grid of time: the form that everything above reads, wherever it came from."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.fleet.usage.oddities import Oddities

STEPS_MAX = 1 << 20
"""The most steps of a grid: ten years of five minutes."""


class UsageError(ValueError):
    """Usage that cannot be had; the message is one sentence, with file and line where there are."""


class Grid(NamedTuple):
    """Instants that are equally far apart.

    Attributes:
        start_s: the first one; Unix time, or on the source's own clock.
        step_s: from one to the next.
        steps: how many there are.
    """

    start_s: int
    step_s: int
    steps: int

    @property
    def days(self) -> float:
        """How long it is."""
        return self.steps * self.step_s / 86400


class Usage(NamedTuple):
    """Some VMs on a grid, a row each.

    Memory is float32: exact to 4 KiB in 64 GiB, at half of what reading it would take.

    Attributes:
        grid: the instants.
        vms: their names.
        capacity_bytes: float32 [vm, step], the guest's RAM; 0 while it is off.
        used_bytes: float32 [vm, step], never more than the capacity.
        valid: bool [vm, step], whether anything is known; the others are 0 where it is not.
    """

    grid: Grid
    vms: tuple[str, ...]
    capacity_bytes: npt.NDArray[np.float32]
    used_bytes: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


class Source(Protocol):
    """Where usage comes from. It is read some VMs at a time, so that a fleet need not fit into memory."""

    @property
    def grid(self) -> Grid:
        """The grid of all its VMs."""

    @property
    def vms(self) -> tuple[str, ...]:
        """The names of its VMs, in their order."""

    @property
    def about(self) -> str:
        """What it is, for people."""

    def read(self, first: int, end: int) -> tuple[Usage, Oddities]:
        """The VMs from `first` up to `end`, and what was odd in them."""
