"""How long and how deep hosts are short of memory."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.jit import kernel


class Pressure(NamedTuple):
    """What came of a placement.

    Attributes:
        hosts: how many hosts there are.
        host_steps: steps times hosts.
        pressed_steps: of these, in which more was wanted than a host had.
        begun: how often a host became short.
        over_byte_steps: bytes that were wanted beyond the room, added up over the steps.
        over_most_bytes: the same at its deepest, of one host.
    """

    hosts: int
    host_steps: int
    pressed_steps: int
    begun: int
    over_byte_steps: float
    over_most_bytes: float


def demand_of(
    held_bytes: npt.NDArray[np.float32], order: npt.NDArray[np.int64], hosts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """What each host would have to hold, float64 [host, step].

    Args:
        held_bytes: float32 [vm, step], held for each VM.
        order: int64 [n], which VMs were placed.
        hosts: int64 [n], on which host.
    """
    demand = np.zeros((int(hosts.max(initial=-1)) + 1, held_bytes.shape[1]))
    add_up(held_bytes, order, hosts, demand)
    return demand


def pressure_of(demand: npt.NDArray[np.float64], room_bytes: float) -> Pressure:
    """How long and how deep the demand, float64 [host, step], lies above what a host has."""
    counts, depths = np.zeros(2, np.int64), np.zeros(2)
    count_pressed(demand, float(room_bytes), counts, depths)
    return Pressure(len(demand), demand.size, int(counts[0]), int(counts[1]), float(depths[0]), float(depths[1]))


@kernel
def add_up(held: Any, order: Any, hosts: Any, demand: Any) -> None:
    """Each VM's row onto its host's."""
    for number in range(order.shape[0]):
        row, onto = held[order[number]], demand[hosts[number]]
        for step in range(row.shape[0]):
            onto[step] += row[step]


@kernel
def count_pressed(demand: Any, room: float, counts: Any, depths: Any) -> None:
    """The steps that are pressed and those that begin so; the sum of bytes beyond the room, and their most."""
    for host in range(demand.shape[0]):
        before = False
        for step in range(demand.shape[1]):
            over = demand[host, step] - room
            if over > 0.0:
                counts[0] += 1
                counts[1] += not before
                depths[0] += over
                depths[1] = max(depths[1], over)
            before = over > 0.0
