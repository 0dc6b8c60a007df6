"""Kill: a host that is short kills the VM for which it holds the most, as the OOM killer would, until it is not.

It is down for `DOWN_S`, and then has what it would have had. Nothing is swapped out.
"""

import math
from typing import Any

import numpy as np

from pagetide.fleet.hosts.answering.answer import Answer, Pressed
from pagetide.jit import kernel

DOWN_S = 600
"""How long a VM is down: to notice it, start it anew and have it work again."""


def answer(pressed: Pressed) -> Answer:
    """Kills, and no swap."""
    counts, back = np.zeros(2, np.int64), np.zeros_like(pressed.hosts)
    by_step = np.ascontiguousarray(pressed.held_bytes.T)
    down_steps, room = math.ceil(DOWN_S / pressed.step_s), float(pressed.host.room_bytes)
    kill(by_step, pressed.hosts, room, down_steps, pressed.demand.copy(), back, counts)
    return Answer(kills=int(counts[0]), down_steps=int(counts[1]))


@kernel
def kill(held: Any, hosts: Any, room: float, down_steps: int, demand: Any, back: Any, counts: Any) -> None:
    """Go from step to step: `held` is [step, vm], `back` is the step in which each VM is there again."""
    for step in range(held.shape[0]):
        row = held[step]
        for vm in range(row.shape[0]):
            if step < back[vm]:
                demand[hosts[vm], step] -= row[vm]
                counts[1] += 1
        for host in range(demand.shape[0]):
            while demand[host, step] > room:
                chosen = -1
                for vm in range(row.shape[0]):
                    if hosts[vm] == host and step >= back[vm] and (chosen < 0 or row[vm] > row[chosen]):
                        chosen = vm
                if chosen < 0 or row[chosen] <= 0.0:
                    break
                demand[host, step] -= row[chosen]
                back[chosen] = step + down_steps
                counts[0] += 1
                counts[1] += 1
