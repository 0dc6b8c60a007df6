"""An operation of a workload, as data: what a vCPU is to allocate or free."""

import numpy as np
import numpy.typing as npt

ALLOCATE = 0
FREE = 1

OPERATION = np.dtype([("kind", np.uint8), ("order", np.uint8), ("slot", np.int32)])
"""An operation: ALLOCATE puts a block of the order into the slot, FREE frees what is in it.

With the order of an ALLOCATE, from LISTED_SHIFT on, goes its migratetype (zone_layout.py).
"""


def operations(kind: npt.ArrayLike, order: npt.ArrayLike, slot: npt.ArrayLike) -> npt.NDArray[np.void]:
    """An array of OPERATION from its columns; a single number stands for all."""
    kinds, orders, slots = np.broadcast_arrays(kind, order, slot)
    made = np.zeros(kinds.shape, OPERATION)
    made["kind"], made["order"], made["slot"] = kinds, orders, slots
    return made
