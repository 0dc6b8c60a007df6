"""What hosts hold for guests over time, from what the guests use: the model, as one pass over the samples.

A guest that is switched off gives everything back, and one whose memory becomes less all beyond that. Growing use takes
free memory that the host still holds first, but for what is left behind in too small blocks, and touches other memory
for the rest; what the host had held and got back before is refaulted. What it holds beyond that is coming back or left
behind or kept (response.py). At an instant of the grid use changes to its new value, and stays there for the step.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.response import LEVELS, Response
from pagetide.fleet.usage.canonical import Usage
from pagetide.jit import inline_kernel, kernel

STEPS, USED, CAPACITY, HELD, HELD_MOST, RETURNED, REFAULTED, FIGURES = range(8)


class Held(NamedTuple):
    """What is held for some guests under one setting.

    Attributes:
        bytes_by_step: float64 [step], held for all of them on average over the step.
        figures: float64 [vm, FIGURES], each VM's: STEPS that are known, and sums over them of bytes USED, of CAPACITY
            and HELD; the most HELD on average over a step; bytes RETURNED and REFAULTED.
    """

    bytes_by_step: npt.NDArray[np.float64]
    figures: npt.NDArray[np.float64]


def held(usage: Usage, response: Response) -> Held:
    """What hosts hold for these guests with this response."""
    found = Held(np.zeros(usage.grid.steps), np.zeros((len(usage.vms), FIGURES)))
    follow_all(usage, response, found.bytes_by_step[np.newaxis], found.figures)
    return found


def follow_all(usage: Usage, response: Response, by_step: npt.NDArray[Any], figures: npt.NDArray[np.float64]) -> None:
    """The same into two zeroed arrays, of which `by_step` has one row for all, or one for each VM."""
    stays, on_average = response.over(usage.grid.step_s)
    columns = usage.capacity_bytes, usage.used_bytes, usage.valid
    kept = response.keeps, response.keeps_bytes
    follow(*columns, response.left, stays, on_average, response.fades, *kept, by_step, figures)


@inline_kernel
def highest_use(highest: float, before: float, use: float, fades: float) -> float:
    """What `use`, which was `before`, makes of the highest use so far.

    Each area that was left behind holds some things that are in use, use / highest / fades on average, taken to be
    distributed geometrically: what is freed and allocated anywhere is a birth and death of things in each. When a share
    of all use is freed, some areas lose their last, and what is left behind comes down by their share.
    """
    if fades > 0.0 and use < before:
        emptied = fades * highest * (before - use) / before
        highest -= (highest - use) * emptied / (use + emptied)
    return max(highest, use)


@kernel
def follow(
    capacity: Any,
    used: Any,
    valid: Any,
    left: Any,
    stays: float,
    on_average: float,
    fades: float,
    keeps: float,
    keeps_bytes: float,
    by_step: Any,
    figures: Any,
) -> None:
    """The whole of `follow_all`."""
    for vm in range(used.shape[0]):
        means = by_step[vm if by_step.shape[0] > 1 else 0]
        now = peak = before = ever = 0.0
        steps = 0
        sum_used = sum_capacity = sum_held = most = returned = refaulted = 0.0
        for step in range(used.shape[1]):
            if not valid[vm, step]:
                continue
            steps += 1
            there = float(capacity[vm, step])
            if there == 0.0:
                now = peak = before = ever = 0.0
                continue
            now, peak, ever = min(now, there), min(peak, there), min(ever, there)
            use = float(used[vm, step])
            peak = highest_use(peak, before, use, fades)
            floor = use
            if peak > 0.0:
                level = math.sqrt(use / peak) * LEVELS
                below = min(int(level), LEVELS - 1)
                floor += peak * (left[below] + (level - below) * (left[below + 1] - left[below]))
            grown = max(use - now, min(floor - now, use - before, there - now), 0.0)
            now += grown
            refaulted += min(grown, ever - now + grown)
            ever = max(ever, now)
            coming = max(now - floor - keeps * there - keeps_bytes, 0.0)
            mean = now - coming * (1.0 - on_average)
            now -= coming * (1.0 - stays)
            returned += coming * (1.0 - stays)
            before = use
            means[step] += mean
            sum_used += use
            sum_capacity += there
            sum_held += mean
            most = max(most, mean)
        row = figures[vm]
        row[STEPS], row[USED], row[CAPACITY], row[HELD] = steps, sum_used, sum_capacity, sum_held
        row[HELD_MOST], row[RETURNED], row[REFAULTED] = most, returned, refaulted
