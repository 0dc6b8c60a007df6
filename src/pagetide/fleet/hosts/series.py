"""What hosts hold for each VM, step by step, under one setting: the model's pass with a row for each VM."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import FIGURES, follow
from pagetide.fleet.guests.response import Response
from pagetide.fleet.usage.canonical import Usage
from pagetide.jit import kernel


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
    stays, on_average = response.over(usage.grid.step_s)
    columns = usage.capacity_bytes, usage.used_bytes, usage.valid
    follow_each(*columns, response.left, stays, on_average, response.fresh, response.fades, *found)
    return found


@kernel
def follow_each(
    capacity: Any,
    used: Any,
    valid: Any,
    left: Any,
    stays: float,
    on_average: float,
    fresh: float,
    fades: float,
    held: Any,
    figures: Any,
) -> None:
    """The whole of `series`, into two zeroed arrays."""
    for vm in range(used.shape[0]):
        one = slice(vm, vm + 1)
        follow(
            capacity[one], used[one], valid[one], left, stays, on_average, fresh, fades, held[vm], figures[one]
        )  # fmt: skip
