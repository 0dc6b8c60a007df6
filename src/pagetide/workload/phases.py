"""What a workload is: phases, each a stretch of operations for every vCPU and what to wait for after it."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.guest.vcpu import ALLOCATE, OPERATION
from pagetide.units import PAGE_SIZE_BYTES


class Phase(NamedTuple):
    """One step of a workload.

    Attributes:
        name: what it is, for people: `burst 2 of 3: eating`.
        burst: which burst it belongs to, from 0.
        eats: whether it allocates; otherwise it frees.
        operations: an array of OPERATION for each vCPU.
        rest_s: how long to wait after the last operation of the last vCPU.
        settle: whether the wait also lasts until the design has nothing left to do.
    """

    name: str
    burst: int
    eats: bool
    operations: tuple[npt.NDArray[np.void], ...]
    rest_s: float
    settle: bool


class Workload(Protocol):
    """A source of phases; the same settings and seed give the same phases."""

    @property
    def slots(self) -> int:
        """How many blocks a vCPU holds at most."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What happens, in order."""


def operations(kind: int, orders: npt.NDArray[np.uint8], slots: npt.NDArray[np.int32]) -> npt.NDArray[np.void]:
    """Operations of one kind, from their orders and slots."""
    assert len(orders) == len(slots)
    made = np.zeros(len(orders), OPERATION)
    made["kind"], made["order"], made["slot"] = kind, orders, slots
    return made


def allocated_bytes(made: npt.NDArray[np.void]) -> int:
    """How much memory these operations allocate."""
    return PAGE_SIZE_BYTES * int((1 << made["order"][made["kind"] == ALLOCATE].astype(np.int64)).sum())
