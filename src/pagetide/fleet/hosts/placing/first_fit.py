"""First fit: each VM on the first host that has room for it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pagetide.jit import kernel


def first_fit(
    wanted: npt.NDArray[np.float64], order: npt.NDArray[np.int64], room_bytes: float
) -> npt.NDArray[np.int64]:
    """Place VMs.

    Args:
        wanted: float64 [vm, span], what each needs by span of time.
        order: int64 [n], which VMs come, one after the other; one may come more than once.
        room_bytes: what a host has.

    Returns:
        int64 [n], the number of the host of each, from 0 without a gap. What does not fit on an empty host has one that
        nothing is added to.
    """
    hosts = np.zeros(len(order), np.int64)
    place(wanted, order, float(room_bytes), np.zeros((len(order), wanted.shape[1])), hosts)
    return hosts


@kernel
def place(wanted: Any, order: Any, room: float, taken: Any, hosts: Any) -> None:
    """The whole of `first_fit`; `taken` is float64 [host, span], zeroed, of as many hosts as there can be."""
    opened = 0
    for number in range(order.shape[0]):
        vm = order[number]
        host = 0
        while host < opened:
            fits = True
            for span in range(wanted.shape[1]):
                if taken[host, span] + wanted[vm, span] > room:
                    fits = False
                    break
            if fits:
                break
            host += 1
        opened = max(opened, host + 1)
        for span in range(wanted.shape[1]):
            taken[host, span] += wanted[vm, span]
        hosts[number] = host
