"""From blocks, each with a birth and a death, to a stream: sorting, and giving each block a slot."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.workload.stream import Mark, Stream

Times = npt.NDArray[np.float64]
Orders = npt.NDArray[np.uint8]
Vcpus = npt.NDArray[np.uint16]

STAYS = float("inf")
"""The death of a block that is never freed."""


class Lives(NamedTuple):
    """Blocks as columns.

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
    born, dies, orders, vcpus = np.broadcast_arrays(born_s, dies_s, order, vcpu)
    assert born.ndim == 1
    assert (dies >= born).all()
    return Lives(born.astype(np.float64), dies.astype(np.float64), orders.astype(np.uint8), vcpus.astype(np.uint16))


def stream_of(*parts: Lives, name: str, end_s: float) -> Stream:
    """One stream of all these blocks, with one mark at its beginning.

    What is born or dies after `end_s` is left out. Of operations that are due at the same time, allocations come first,
    in the order of the blocks.
    """
    born, dies, order, vcpu = (np.concatenate(column) for column in zip(*parts, strict=True))
    blocks = np.arange(len(born))
    at_s = np.concatenate([born, dies])
    rows = np.argsort(at_s, kind="stable")
    rows = rows[: np.searchsorted(at_s[rows], end_s, "right")]
    at_s, block = at_s[rows], np.concatenate([blocks, blocks])[rows]
    kind = np.where(rows < len(born), ALLOCATE, FREE).astype(np.uint8)
    vcpu = vcpu[block]
    slot = np.zeros(len(rows), np.int32)
    for one in np.unique(vcpu):
        own = np.flatnonzero(vcpu == one)
        slot[own] = slots(kind[own], block[own])
    return Stream(at_s, kind, order[block], slot, vcpu, (Mark(0, name),), end_s)


def any_vcpu(rng: np.random.Generator, count: int, vcpus: int) -> Vcpus:
    """A vCPU for each of so many blocks, drawn."""
    return rng.integers(0, vcpus, count).astype(np.uint16)


def starting_with(name: str, stream: Stream) -> Stream:
    """The same stream, with what is due at 0 s as a stretch of its own: the clock stands still until it is done."""
    (mark,) = stream.marks
    started = int(np.searchsorted(stream.at_s, 0.0, "right"))
    assert started > 0
    return stream._replace(marks=(Mark(0, name), mark._replace(first=started)))


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
