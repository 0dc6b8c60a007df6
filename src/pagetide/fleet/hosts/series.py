"""What hosts hold for each VM, step by step, under one setting or a mixture: the model's pass, a row for each VM."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import FIGURES, follow_all
from pagetide.fleet.guests.mixture import Mixture, these
from pagetide.fleet.usage.canonical import Usage


class Series(NamedTuple):
    """Some VMs under one setting.

    Attributes:
        held_bytes: float32 [vm, step], held for it on average over the step; 0 where it is off or not known.
        figures: float64 [vm, FIGURES], as `Held` has them.
        parts: int64 [vm], which part of the mixture each has.
    """

    held_bytes: npt.NDArray[np.float32]
    figures: npt.NDArray[np.float64]
    parts: npt.NDArray[np.int64]


def series(usage: Usage, mixture: Mixture, parts: npt.NDArray[np.int64]) -> Series:
    """What hosts hold for each of these guests, of which each has the response of its part, int64 [vm]."""
    vms = len(usage.vms)
    found = Series(np.zeros(usage.used_bytes.shape, np.float32), np.zeros((vms, FIGURES)), parts)
    for number, response in enumerate(mixture.parts):
        own = np.flatnonzero(parts == number)
        if len(own) == vms:
            follow_all(usage, response, found.held_bytes, found.figures)
        elif len(own):
            held, figures = np.zeros((len(own), usage.grid.steps), np.float32), np.zeros((len(own), FIGURES))
            follow_all(these(usage, own), response, held, figures)
            found.held_bytes[own], found.figures[own] = held, figures
    return found
