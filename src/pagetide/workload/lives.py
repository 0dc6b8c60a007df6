"""Blocks, each with a birth and a death, and a slot for each in a stream."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import ALLOCATE, FREE

Times = npt.NDArray[np.float64]
Orders = npt.NDArray[np.uint8]
Vcpus = npt.NDArray[np.uint16]

STAYS = float("inf")
"""The death of a block that is never freed."""


class Lives(NamedTuple):
    """Blocks as columns. One that is the same for all of them is kept once (stride 0).

    Attributes:
        born_s: float64, when it is allocated.
        dies_s: float64, when it is freed, not before its birth; STAYS if never.
        order: uint8.
        vcpu: uint16.
    """

    born_s: Times
    dies_s: Times
    order: Orders
    vcpu: Vcpus


def lives(born_s: npt.ArrayLike, dies_s: npt.ArrayLike, order: npt.ArrayLike, vcpu: npt.ArrayLike) -> Lives:
    """Blocks from columns of any numeric type; a single number stands for all."""
    columns = np.asarray(born_s, np.float64), np.asarray(dies_s, np.float64), np.asarray(order, np.uint8)
    made = Lives(*np.broadcast_arrays(*columns, np.asarray(vcpu, np.uint16)))
    assert made.born_s.ndim == 1
    assert (made.dies_s >= made.born_s).all()
    return made


def any_vcpu(rng: np.random.Generator, count: int, vcpus: int) -> Vcpus:
    """A vCPU for each of so many blocks, drawn."""
    return rng.integers(0, vcpus, count).astype(np.uint16)


def slots(kind: npt.NDArray[np.uint8], block: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """A slot for every operation of one vCPU, as few as there are blocks at once.

    A birth takes the slot that became free first, or a new one if none is free. Nothing is simulated: the k-th birth
    that needs no new slot takes over that of the k-th death, and following these takeovers back leads to a new slot.

    Args:
        kind: ALLOCATE or FREE, in the order in which they run.
        block: which block each is about, numbers that are not much larger than there are blocks.
    """
    births, deaths = np.flatnonzero(kind == ALLOCATE), np.flatnonzero(kind == FREE)
    held = np.where(kind == ALLOCATE, 1, -1).cumsum()
    most_before = np.maximum.accumulate(np.concatenate([[0], held[:-1]]))
    new = held[births] > most_before[births]
    number = np.zeros(int(block.max(initial=0)) + 1, np.int64)
    number[block[births]] = np.arange(len(births))
    taken_over = np.arange(len(births))
    heirs = np.flatnonzero(~new)
    taken_over[heirs] = number[block[deaths[: len(heirs)]]]
    while not np.array_equal(further := taken_over[taken_over], taken_over):
        taken_over = further
    own = (new.cumsum() - 1)[taken_over]
    return own[number[block]].astype(np.int32)
