"""What hosts do about pressure: what it leads to, in the same words for each policy."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.hosts.host import Host


class Pressed(NamedTuple):
    """Hosts, with what their VMs want of them.

    Attributes:
        host: what each has.
        held_bytes: float32 [vm, step], held for each VM, if its host can.
        used_bytes: float32 [vm, step], how much of that it uses.
        hosts: int64 [vm], on which host each is.
        demand: float64 [host, step], what each host would have to hold.
        step_s: how long a step is.
    """

    host: Host
    held_bytes: npt.NDArray[np.float32]
    used_bytes: npt.NDArray[np.float32]
    hosts: npt.NDArray[np.int64]
    demand: npt.NDArray[np.float64]
    step_s: int

    @property
    def over(self) -> npt.NDArray[np.float64]:
        """What each host would have to hold beyond its room; float64 [host, step]."""
        return beyond(self.demand, self.host)


class Answer(NamedTuple):
    """What it led to.

    Attributes:
        swapped_byte_steps: bytes that were swapped out, added up over the steps.
        swapped_most_bytes: the same of one host at its highest.
        taken_byte_steps: likewise bytes that a balloon took of what was not used.
        moves: how many VMs were moved to other hosts.
        moved_bytes: what was held for them when they were.
        kills: how many VMs were killed.
        down_steps: for how many steps they were down, together.
        short_steps: steps times hosts in which that was not enough: swap was full, and the kernel would kill.
    """

    swapped_byte_steps: float = 0.0
    swapped_most_bytes: float = 0.0
    taken_byte_steps: float = 0.0
    moves: int = 0
    moved_bytes: float = 0.0
    kills: int = 0
    down_steps: int = 0
    short_steps: int = 0


def beyond(demand: npt.NDArray[np.float64], host: Host) -> npt.NDArray[np.float64]:
    """How much of a demand, float64 [host, step], lies above what a host has."""
    return np.maximum(demand - host.room_bytes, 0.0)


def into_swap(over: npt.NDArray[np.float64], host: Host) -> Answer:
    """What is beyond a host's room, float64 [host, step], is swapped out, as far as there is swap."""
    swapped = np.minimum(over, host.swap_bytes)
    return Answer(
        swapped_byte_steps=float(swapped.sum()),
        swapped_most_bytes=float(swapped.max(initial=0.0)),
        short_steps=int(np.count_nonzero(over > host.swap_bytes)),
    )
