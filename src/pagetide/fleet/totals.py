"""A fleet's sums: what its hosts hold for all VMs together, by setting."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import CAPACITY, HELD, HELD_MOST, REFAULTED, RETURNED, STEPS, held
from pagetide.fleet.guests.response import Response
from pagetide.fleet.usage.canonical import Grid, Source
from pagetide.fleet.usage.oddities import Oddities, together
from pagetide.fleet.usage.source import refuse_odd

VMS_AT_ONCE = 128
"""So many are read at a time: a month of them in steps of five minutes takes some 60 MiB."""


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """All VMs of a fleet under one setting.

    Attributes:
        name: of the setting.
        mean_bytes: what is held for all of them, on average over the time.
        most_bytes: the same at its highest.
        most_at_s: when that was, on the grid's clock.
        mosts_bytes: what each VM held at its own highest, added up.
        returned_bytes: what came back, in all.
        refaulted_bytes: how much of that was touched again.
    """

    name: str
    mean_bytes: float
    most_bytes: float
    most_at_s: int
    mosts_bytes: float
    returned_bytes: float
    refaulted_bytes: float


class Totals(NamedTuple):
    """What was found.

    Attributes:
        vms: how many VMs there are.
        vm_days: for how long they are known, together.
        provisioned_bytes: what the VMs that are on have, on average over the time.
        settings: one for each response, in their order.
        oddities: what was odd in the usage.
    """

    vms: int
    vm_days: float
    provisioned_bytes: float
    settings: tuple[Total, ...]
    oddities: Oddities


def totals(source: Source, responses: Sequence[Response], tell: Callable[[int], None]) -> Totals:
    """Add up a fleet.

    Args:
        source: its usage.
        responses: the settings.
        tell: is told how many more VMs are done.

    Raises:
        UsageError: too much of it is odd.
    """
    grid, vms = source.grid, len(source.vms)
    by_step = np.zeros((len(responses), grid.steps))
    odd, figures = list[Oddities](), list[npt.NDArray[np.float64]]()
    for first in range(0, vms, VMS_AT_ONCE):
        usage, found = source.read(first, min(first + VMS_AT_ONCE, vms))
        odd.append(found)
        parts = [held(usage, response) for response in responses]
        by_step += np.stack([part.bytes_by_step for part in parts])
        figures.append(np.stack([part.figures.sum(0) for part in parts]))
        tell(len(usage.vms))
    oddities = together(odd)
    refuse_odd(source.about, oddities)
    sums = np.sum(figures, axis=0)
    return Totals(
        vms=vms,
        vm_days=float(sums[0, STEPS]) * grid.step_s / 86400,
        provisioned_bytes=float(sums[0, CAPACITY]) / grid.steps,
        settings=tuple(map(_total, responses, [grid] * len(responses), by_step, sums)),
        oddities=oddities,
    )


def _total(response: Response, grid: Grid, by_step: npt.NDArray[np.float64], sums: npt.NDArray[np.float64]) -> Total:
    most = int(by_step.argmax())
    return Total(
        name=response.name,
        mean_bytes=float(sums[HELD]) / grid.steps,
        most_bytes=float(by_step[most]),
        most_at_s=grid.start_s + most * grid.step_s,
        mosts_bytes=float(sums[HELD_MOST]),
        returned_bytes=float(sums[RETURNED]),
        refaulted_bytes=float(sums[REFAULTED]),
    )
