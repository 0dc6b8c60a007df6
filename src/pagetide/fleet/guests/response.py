"""How a guest under one setting answers a change of its use: what the model of `held.py` needs to know.

Free memory that the host still holds is of three kinds. Some is *coming*: it returns, with a time constant. Some is
*left behind*: it lies between what is in use, in blocks too small to be reported, and stays until it is used again or
so much is freed around it that it can be reported. How much is left behind depends on how far use has fallen from its
highest: nothing where nothing was freed, and nothing where all was. That highest fades: whenever use falls, some of the
areas in which little was in use lose their last page. And some is *kept*: a balloon leaves a guest a reserve, and
at the end of what is in use lies a part of a block, which is no larger in a large guest.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVELS = 16
"""Into how many parts use is divided, from nothing to its highest; level i is (i / LEVELS) squared of that.

They lie closer at the bottom, where most changes: a handful of pages keeps whole areas from coming back.
"""


class Response(NamedTuple):
    """One setting's.

    Attributes:
        name: of the setting.
        return_s: the time constant with which free memory returns; infinite if it never does.
        left: float64 [LEVELS + 1], what is left behind once all that comes back has, by the level to which use has
            fallen, both as shares of the highest, which fades; in between along straight lines over its root.
        fades: 1 over how many things that are freed one by one lie in a full area that comes back only as a whole; by
            it the highest comes down as use falls (`highest_use`). 0 if no area ever loses its last.
        keeps: what is kept, of the guest's memory.
        keeps_bytes: what is kept beside it, whatever the guest's memory.
    """

    name: str
    return_s: float
    left: npt.NDArray[np.float64]
    fades: float = 0.0
    keeps: float = 0.0
    keeps_bytes: float = 0.0

    def over(self, step_s: float) -> tuple[float, float]:
        """Of what is coming back, the share that is still there after a step, and the share on average over it."""
        if self.return_s == 0:
            return 0.0, 0.0
        if math.isinf(self.return_s):
            return 1.0, 1.0
        stays = math.exp(-step_s / self.return_s)
        return stays, (1 - stays) * self.return_s / step_s


NOTHING_RETURNS = Response("nothing returns", math.inf, np.zeros(LEVELS + 1))
"""The most used so far: the least that a host holds for a guest that returns nothing."""

ALL_RETURNS = Response("all returns at once", 0.0, np.zeros(LEVELS + 1))
"""What is used: the least that a host can hold whatever the guest does."""
