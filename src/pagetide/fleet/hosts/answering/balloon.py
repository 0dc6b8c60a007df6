"""A balloon that takes: first what is held for VMs that do not use it, and only what is missing then goes into swap.

It takes in the same step, and gives back when the pressure is over; what guests do for it is not counted here.
"""

import numpy as np

from pagetide.fleet.hosts.answering.answer import Answer, Pressed, into_swap
from pagetide.fleet.hosts.pressure import demand_of


def answer(pressed: Pressed) -> Answer:
    """What is not used, then swap."""
    used = demand_of(pressed.used_bytes, np.arange(len(pressed.hosts)), pressed.hosts)
    over = pressed.over
    taken = np.minimum(over, np.maximum(pressed.demand - used, 0.0))
    return into_swap(over - taken, pressed.host)._replace(taken_byte_steps=float(taken.sum()))
