"""Migration: a host that is short moves the smallest VM whose leaving is enough, or else its largest, and so on.

It goes to the host that holds the least, if it has room there; if not, it stays, and what is missing is swapped out. A
VM stays where it was moved to. Moving takes no time here; what is sent is counted.
"""

from typing import Any

import numpy as np

from pagetide.fleet.hosts.answering.answer import Answer, Pressed, beyond, into_swap
from pagetide.jit import kernel


def answer(pressed: Pressed) -> Answer:
    """Moves, then swap."""
    demand, counts = np.zeros_like(pressed.demand), np.zeros(2)
    by_step = np.ascontiguousarray(pressed.held_bytes.T)
    move(by_step, pressed.hosts.copy(), float(pressed.host.room_bytes), demand, counts)
    left = into_swap(beyond(demand, pressed.host), pressed.host)
    return left._replace(moves=int(counts[0]), moved_bytes=float(counts[1]))


@kernel
def move(held: Any, hosts: Any, room: float, demand: Any, counts: Any) -> None:
    """Go from step to step: `held` is [step, vm], `hosts` changes, `demand` becomes what hosts have to hold then."""
    for step in range(held.shape[0]):
        row = held[step]
        for vm in range(row.shape[0]):
            demand[hosts[vm], step] += row[vm]
        for host in range(demand.shape[0]):
            while demand[host, step] > room:
                chosen = leaves(row, hosts, host, demand[host, step] - room)
                to = 0
                for other in range(demand.shape[0]):
                    if demand[other, step] < demand[to, step]:
                        to = other
                if chosen < 0 or demand[to, step] + row[chosen] > room:
                    break
                demand[host, step] -= row[chosen]
                demand[to, step] += row[chosen]
                hosts[chosen] = to
                counts[0] += 1
                counts[1] += row[chosen]


@kernel
def leaves(row: Any, hosts: Any, host: int, over: float) -> int:
    """The smallest VM of a host that holds so much, or else its largest; -1 if none holds anything."""
    enough = largest = -1
    for vm in range(row.shape[0]):
        if hosts[vm] != host or row[vm] <= 0.0:
            continue
        if row[vm] >= over and (enough < 0 or row[vm] < row[enough]):
            enough = vm
        if largest < 0 or row[vm] > row[largest]:
            largest = vm
    return enough if enough >= 0 else largest
