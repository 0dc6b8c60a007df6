"""A host, and what a planner knows of the VMs that are to be placed on hosts like it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.usage.canonical import Usage

PLANNED_SHARE = 0.5
"""VMs are placed by what this first part of the time shows; what follows from that is counted over the rest."""

_KNOWN_S = 86400
_HOUR_S = 3600


class Host(NamedTuple):
    """What each host has.

    Attributes:
        ram_bytes: its memory.
        reserve_bytes: how much of that its own kernel, daemons and page cache keep.
        swap_bytes: how much it can swap out.
    """

    ram_bytes: int
    reserve_bytes: int
    swap_bytes: int

    @property
    def room_bytes(self) -> int:
        """What it has for VMs."""
        return self.ram_bytes - self.reserve_bytes


class Known(NamedTuple):
    """What a planner knows of some VMs: what was held for them under a setting until then.

    Attributes:
        reserved_bytes: float64 [vm], the most memory that each ever has.
        is_known: bool [vm], whether it was on for a day, or for a quarter of a shorter time; the others are placed by
            what they reserve.
        sorted_bytes: float32 [vm, step], what was held, growing; steps of which nothing is known are infinite.
        steps: int64 [vm], how many are known.
        hourly_bytes: float32 [vm, hour], the most held within each hour; what is reserved where nothing of it is known.
    """

    reserved_bytes: npt.NDArray[np.float64]
    is_known: npt.NDArray[np.bool_]
    sorted_bytes: npt.NDArray[np.float32]
    steps: npt.NDArray[np.int64]
    hourly_bytes: npt.NDArray[np.float32]


def planned_steps(usage: Usage) -> int:
    """After how many steps VMs are placed."""
    return int(usage.grid.steps * PLANNED_SHARE)


def known(usage: Usage, held_bytes: npt.NDArray[np.float32]) -> Known:
    """What is known of these VMs by the time that they are placed.

    Args:
        usage: theirs.
        held_bytes: float32 [vm, step], what is held for each.
    """
    end, step_s = planned_steps(usage), usage.grid.step_s
    seen, held = usage.valid[:, :end], held_bytes[:, :end]
    on_steps = (seen & (usage.capacity_bytes[:, :end] > 0)).sum(1)
    reserved = usage.capacity_bytes.max(1)
    begins = np.arange(0, end, max(1, _HOUR_S // step_s))
    hours = held
    if end:
        is_seen = np.logical_or.reduceat(seen, begins, axis=1)
        hours = np.where(is_seen, np.maximum.reduceat(held, begins, axis=1), reserved[:, np.newaxis])
    return Known(
        reserved_bytes=reserved.astype(np.float64),
        is_known=on_steps >= max(1, min(_KNOWN_S // step_s, end // 4)),
        sorted_bytes=np.sort(np.where(seen, held, np.float32(np.inf)), axis=1),
        steps=seen.sum(1),
        hourly_bytes=hours,
    )
