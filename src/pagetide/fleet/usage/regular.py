"""From samples at any time to a grid, by the rules of oddities.py."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.usage.canonical import Grid, Usage
from pagetide.fleet.usage.oddities import HELD_OVER_STEPS, Count, Oddities


class Samples(NamedTuple):
    """Samples as columns, sorted by VM and then by time.

    Attributes:
        vm: int64, the number of the VM's row.
        time_s: float64, on the grid's clock, none before its start.
        capacity_bytes: float64, not negative.
        used_bytes: float64, not negative.
    """

    vm: npt.NDArray[np.int64]
    time_s: npt.NDArray[np.float64]
    capacity_bytes: npt.NDArray[np.float64]
    used_bytes: npt.NDArray[np.float64]


def regular(samples: Samples, vms: Sequence[str], grid: Grid) -> tuple[Usage, Oddities]:
    """Put samples on a grid: each belongs to the step that is nearest.

    Args:
        samples: of these VMs; one may have none.
        vms: their names, by the numbers of the rows.
        grid: from the first sample to the last.
    """
    step = np.minimum(np.floor((samples.time_s - grid.start_s) / grid.step_s + 0.5).astype(np.int64), grid.steps - 1)
    cell = samples.vm * grid.steps + step
    firsts = np.flatnonzero(np.diff(cell, prepend=-1))
    shape = (len(vms), grid.steps)
    capacity, used = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    seen = np.zeros(shape, np.bool_)
    if len(firsts):
        seen.flat[cell[firsts]] = True
        capacity.flat[cell[firsts]] = np.maximum.reduceat(samples.capacity_bytes, firsts)
        used.flat[cell[firsts]] = np.maximum.reduceat(samples.used_bytes, firsts)
    odd = _odd_samples(samples, grid.step_s)
    counts = {name: np.bincount(samples.vm[mask], minlength=len(vms)) for name, mask in odd.items()}
    valid, apart = _hold_over(seen, capacity, used, _late(samples, step, grid))
    counts["held_over"] = (apart & valid).sum(1)
    counts["unknown"] = (apart & ~valid).sum(1)
    np.minimum(used, capacity, out=used)
    missing = int(counts["held_over"].sum() + counts["unknown"].sum())
    named = {name: _count(by_vm, vms) for name, by_vm in counts.items() if by_vm.any()}
    return Usage(grid, tuple(vms), capacity, used, valid), Oddities(len(samples.vm) + missing, named)


def _odd_samples(samples: Samples, step_s: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Which samples each rule is about."""
    same_vm = np.diff(samples.vm, prepend=-1) == 0
    since_s = np.diff(samples.time_s, prepend=0.0)
    is_off = samples.capacity_bytes == 0
    return {
        "off": is_off,
        "over": ~is_off & (samples.used_bytes > samples.capacity_bytes),
        "repeated": same_vm & (since_s == 0),
        "dense": same_vm & (since_s > 0) & (since_s < step_s / 2),
        "resized": same_vm & ~is_off & ~np.roll(is_off, 1) & (np.diff(samples.capacity_bytes, prepend=0.0) != 0),
    }


def _late(samples: Samples, step: npt.NDArray[np.int64], grid: Grid) -> tuple[npt.NDArray[np.int64], ...]:
    """The VM and step of samples that come more than a step and a half after the one before: steps before are missing.

    Clocks drift, so that now and then two samples are a step apart and a grid's instant between them is the nearest of
    neither: that is not missing.
    """
    same_vm = np.diff(samples.vm, prepend=-1) == 0
    late = same_vm & (np.diff(samples.time_s, prepend=0.0) > 1.5 * grid.step_s)
    return samples.vm[late], step[late]


def _hold_over(
    seen: npt.NDArray[np.bool_],
    capacity: npt.NDArray[np.float32],
    used: npt.NDArray[np.float32],
    late: tuple[npt.NDArray[np.int64], ...],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Fill short gaps from the step before them, in place; what is known then, and which steps are missing."""
    steps = np.arange(seen.shape[1])
    last = np.maximum.accumulate(np.where(seen, steps, -1), axis=1)
    following = np.minimum.accumulate(np.where(seen, steps, len(steps))[:, ::-1], axis=1)[:, ::-1]
    inside = ~seen & (last >= 0) & (following < len(steps))
    after_late = np.zeros((seen.shape[0], seen.shape[1] + 1), np.bool_)
    after_late[late] = True
    missing = inside & np.take_along_axis(after_late, following, 1)
    fills = inside & (steps - last <= HELD_OVER_STEPS)
    rows = np.nonzero(fills)[0]
    capacity[fills], used[fills] = capacity[rows, last[fills]], used[rows, last[fills]]
    return seen | fills, missing


def _count(by_vm: npt.NDArray[Any], vms: Sequence[str]) -> Count:
    worst = int(by_vm.argmax())
    return Count(int(by_vm.sum()), int(np.count_nonzero(by_vm)), (vms[worst], int(by_vm[worst])))
