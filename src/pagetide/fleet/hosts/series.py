"""What hosts hold for each VM, step by step, under one setting: the model's pass with a row for each VM."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import FIGURES, follow_all
from pagetide.fleet.guests.response import Response
from pagetide.fleet.usage.canonical import Usage


class Series(NamedTuple):
    """Some VMs under one setting.

    Attributes:
        held_bytes: float32 [vm, step], held for it on average over the step; 0 where it is off or not known.
        figures: float64 [vm, FIGURES], as `Held` has them.
    """

    held_bytes: npt.NDArray[np.float32]
    figures: npt.NDArray[np.float64]


def series(usage: Usage, response: Response) -> Series:
    """What hosts hold for each of these guests with this response."""
    found = Series(np.zeros(usage.used_bytes.shape, np.float32), np.zeros((len(usage.vms), FIGURES)))
    follow_all(usage, response, *found)
    return found
