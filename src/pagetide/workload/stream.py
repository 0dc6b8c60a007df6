"""A workload as one stream of operations: what every machine runs, and what a file of operations holds.

A stream has its own clock. An operation is due when the clock shows its time, and runs then or as soon after as its
vCPU can. At a mark the clock stands still until every operation before the mark has run (and, where the stretch says
so, until the design is at rest); then it goes on from the due time of the operation before. So a burst that takes
longer on one machine than on another is held for the same time on both.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import ALLOCATE, FREE, operations
from pagetide.guest.allocator.zone_layout import LISTED_SHIFT, MIGRATETYPES
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES

VCPUS_MAX = 64
SLOTS_MAX = 1 << 28
NO_BURST = -1
PIECE_OPERATIONS = 1 << 14
"""How many operations are made at once: the larger a piece, the more of the processor's cache it takes."""


class StreamError(ValueError):
    """A stream that cannot be run, read or written; the message is one sentence that says why."""


class Mark(NamedTuple):
    """Where a stretch of a stream begins, and what it is; it ends where the next one begins.

    Attributes:
        first: the index of its first operation.
        name: what it is, for people: `burst 2 of 3: eating`.
        burst: which burst it belongs to, from 0; NO_BURST if to none.
        eats: whether the burst eats here; otherwise it frees. Means nothing without a burst.
        settle: whether the clock stands still after it until the design has nothing left to do, too.
    """

    first: int
    name: str
    burst: int = NO_BURST
    eats: bool = False
    settle: bool = False


class Stretch(NamedTuple):
    """What lies between two marks.

    Attributes:
        mark: the first of the two.
        from_s: what the clock shows when it begins.
        until_s: the due time of its last operation: the clock does not pass it before all have run.
        first_s: that of its first one; None if it has none.
        allocated_bytes: what it allocates.
    """

    mark: Mark
    from_s: float
    until_s: float
    first_s: float | None
    allocated_bytes: int


class VcpuOperations(NamedTuple):
    """What one vCPU does in a stream.

    Attributes:
        operations: array of OPERATION, in the order in which it runs them; a slot is one of all vCPUs' slots, of which
            a vCPU's own begin where `Stream.slot_firsts` says.
        due_s: float64 array, when each is due.
        ends: int64 array, for each stretch the index after its last operation here.
    """

    operations: npt.NDArray[np.void]
    due_s: npt.NDArray[np.float64]
    ends: npt.NDArray[np.int64]


class Piece(NamedTuple):
    """Some of a vCPU's operations, of one stretch.

    Attributes:
        operations: array of OPERATION, PIECE_OPERATIONS at most; a slot is one of all vCPUs' slots.
        due_s: float64 array, when each is due.
        is_last: whether these are the last ones of their stretch.
    """

    operations: npt.NDArray[np.void]
    due_s: npt.NDArray[np.float64]
    is_last: bool


class Work(Protocol):
    """What vCPUs do, whether all of it is there (`Stream`) or made when it is wanted (plan.py)."""

    @property
    def end_s(self) -> float:
        """When it is over on its clock."""

    @property
    def nr_operations(self) -> int:
        """How many operations it has."""

    @property
    def vcpus(self) -> int:
        """How many vCPUs it takes."""

    @property
    def slot_firsts(self) -> npt.NDArray[np.int64]:
        """Where each vCPU's own slots begin among all, and after the last one how many there are."""

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The stretches between its marks, in order."""

    @property
    def has_migratetypes(self) -> bool:
        """Whether it says of allocations what they are."""

    def pieces(self, vcpu: int) -> Iterator[Piece]:
        """What one vCPU does: at least one piece a stretch, which may be empty."""

    def whole(self) -> "Stream":
        """All operations as one stream."""


class Stream(NamedTuple):
    """Operations as columns, one entry an operation, in the order in which they are due.

    Attributes:
        at_s: float64, when it is due on the stream's clock; never less than the one before.
        kind: uint8, ALLOCATE or FREE.
        order: uint8, of the block.
        slot: int32, which of the vCPU's blocks. A slot is filled, freed with the same order, and filled again. Where
            `freed_by` is there, machines want one vCPU only to free what is in a slot (`with_slots_by_freer`).
        vcpu: uint16, whose slot it is: who allocates the block, and frees it where `freed_by` does not say otherwise.
        marks: where stretches begin; the first one at 0, and no two at the same operation.
        end_s: when the stream is over on its clock, at the last operation or later.
        freed_by: uint16, who runs it: `vcpu` where it allocates, anyone where it frees. None if always `vcpu` does.
        migratetype: uint8, what an allocation is: MOVABLE, UNMOVABLE or RECLAIMABLE (zone_layout.py); of a free nobody
            looks at it. None if all are movable.
    """

    at_s: npt.NDArray[np.float64]
    kind: npt.NDArray[np.uint8]
    order: npt.NDArray[np.uint8]
    slot: npt.NDArray[np.int32]
    vcpu: npt.NDArray[np.uint16]
    marks: tuple[Mark, ...]
    end_s: float
    freed_by: npt.NDArray[np.uint16] | None = None
    migratetype: npt.NDArray[np.uint8] | None = None

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns by name."""
        columns: dict[str, npt.NDArray[Any]]
        columns = {"at_s": self.at_s, "kind": self.kind, "order": self.order, "slot": self.slot, "vcpu": self.vcpu}
        others = {"freed_by": self.freed_by, "migratetype": self.migratetype}
        return columns | {name: column for name, column in others.items() if column is not None}

    @property
    def runs_on(self) -> npt.NDArray[np.uint16]:
        """Who runs each operation."""
        return self.vcpu if self.freed_by is None else self.freed_by

    @property
    def has_migratetypes(self) -> bool:
        """Whether it says of allocations what they are."""
        return self.migratetype is not None

    @property
    def nr_operations(self) -> int:
        """How many operations it has."""
        return len(self.at_s)

    @property
    def vcpus(self) -> int:
        """How many vCPUs it takes."""
        return int(max(self.vcpu.max(initial=0), self.runs_on.max(initial=0))) + 1

    @property
    def slot_firsts(self) -> npt.NDArray[np.int64]:
        """Where each vCPU's own slots begin among all, and after the last one how many there are."""
        counts = np.zeros(self.vcpus, np.int64)
        np.maximum.at(counts, self.vcpu, self.slot.astype(np.int64) + 1)
        return np.concatenate([[0], counts.cumsum()])

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The stretches between its marks, in order."""
        ends = [mark.first for mark in self.marks[1:]] + [self.nr_operations]
        limits = [0.0] + [float(self.at_s[end - 1]) if end else 0.0 for end in ends]
        firsts = [mark.first for mark in self.marks]
        due = [float(self.at_s[first]) if first < end else None for first, end in zip(firsts, ends, strict=True)]
        return tuple(map(Stretch, self.marks, limits[:-1], limits[1:], due, map(self.allocated_bytes, firsts, ends)))

    def operations_of(self, vcpu: int) -> VcpuOperations:
        """What one vCPU does."""
        rows = np.flatnonzero(self.runs_on == vcpu)
        kind, order = self.kind[rows], self.order[rows]
        if self.migratetype is not None:
            order = order | (self.migratetype[rows] * (kind == ALLOCATE)) << np.uint8(LISTED_SHIFT)
        own = operations(kind, order, self.slot_firsts[self.vcpu[rows]] + self.slot[rows])
        ends = np.searchsorted(rows, [*(mark.first for mark in self.marks[1:]), self.nr_operations])
        return VcpuOperations(own, self.at_s[rows], ends)

    def pieces(self, vcpu: int) -> Iterator[Piece]:
        """The same in pieces, as `Work` has it."""
        own, begin = self.operations_of(vcpu), 0
        for end in own.ends.tolist():
            for first in range(begin, max(end, begin + 1), PIECE_OPERATIONS):
                until = min(first + PIECE_OPERATIONS, end)
                yield Piece(own.operations[first:until], own.due_s[first:until], until == end)
            begin = end

    def whole(self) -> "Stream":
        """This stream, as `Work` has it."""
        return self

    def allocated_bytes(self, first: int, end: int) -> int:
        """How much memory the operations from `first` up to `end` allocate."""
        orders = self.order[first:end][self.kind[first:end] == ALLOCATE]
        return PAGE_SIZE_BYTES * int((1 << orders.astype(np.int64)).sum())

    def with_slots_by_freer(self) -> "Stream":
        """The same blocks in slots that one vCPU each empties, as one fills them: they take turns, whoever is early.

        So a vCPU waits only for what is due before. A block that is never freed counts as freed by who allocated it.
        """
        if self.freed_by is None:
            return self
        place = self.vcpu.astype(np.int64) * SLOTS_MAX + self.slot
        rows = np.argsort(place, kind="stable")
        freer = self.freed_by[rows].astype(np.int64)
        is_freed = (self.kind[rows[1:]] == FREE) & (place[rows[1:]] == place[rows[:-1]])
        freer[:-1] = np.where(is_freed, freer[1:], freer[:-1])
        found, number = np.unique(place[rows] * self.vcpus + freer, return_inverse=True)
        owners = found // (SLOTS_MAX * self.vcpus)
        slot = np.empty_like(self.slot)
        slot[rows] = number - np.searchsorted(owners, self.vcpu[rows])
        return self._replace(slot=slot)

    @property
    def peak_bytes(self) -> int:
        """The most that is allocated at once if every operation runs in its turn."""
        pages = 1 << self.order.astype(np.int64)
        return PAGE_SIZE_BYTES * int(np.where(self.kind == ALLOCATE, pages, -pages).cumsum().max(initial=0))

    def check(self) -> None:
        """Look at a stream that somebody else made.

        Raises:
            StreamError: it does not keep to what the columns and marks mean.
        """
        for holds, sentence in (
            (self.nr_operations > 0, "has no operations"),
            (bool(np.isfinite(self.at_s).all()), "has an operation with no finite time"),
            (not (self.at_s[:1] < 0).any(), "begins before 0 s"),
            (not (np.diff(self.at_s) < 0).any(), "has an operation that is due before the one that it follows"),
            (bool(np.isin(self.kind, (ALLOCATE, FREE)).all()), "has an operation that neither allocates nor frees"),
            (int(self.order.max(initial=0)) <= ORDER_MAX, f"has a block larger than order {ORDER_MAX}"),
            (
                self.migratetype is None or int(self.migratetype.max(initial=0)) < MIGRATETYPES,
                f"has a migratetype that is not below {MIGRATETYPES}",
            ),
            (self.vcpus <= VCPUS_MAX, f"takes more than {VCPUS_MAX} vCPUs"),
            (0 <= self.slot.min(initial=0) <= self.slot.max(initial=0) < SLOTS_MAX, "has a slot that is out of range"),
            (self.slot_firsts[-1] < 1 << 31, "has more slots than 2^31 - 1"),
            (
                not ((self.kind == ALLOCATE) & (self.runs_on != self.vcpu)).any(),
                "has an allocation that another vCPU runs than the one whose slot it fills",
            ),
            (self._marks_are_sound(), "has marks that are out of order"),
            (np.isfinite(self.end_s) and self.end_s >= self.at_s.max(initial=0), "ends before its last operation"),
        ):
            if not holds:
                raise StreamError(sentence)
        self._check_slots()

    def _marks_are_sound(self) -> bool:
        indices = [mark.first for mark in self.marks]
        return indices[:1] == [0] and indices == sorted(set(indices)) and indices[-1] <= self.nr_operations

    def _check_slots(self) -> None:
        """Every slot is filled and freed in turn, and freed with the order with which it was filled."""
        place = self.vcpu.astype(np.int64) * SLOTS_MAX + self.slot
        rows = np.argsort(place, kind="stable")
        place, kind, order = place[rows], self.kind[rows], self.order[rows]
        first = np.concatenate([[True], place[1:] != place[:-1]])
        follows = ~first[1:]
        if (kind[first] != ALLOCATE).any() or (follows & (kind[1:] == FREE) & (kind[:-1] == FREE)).any():
            raise StreamError("frees a slot that holds nothing")
        if (follows & (kind[1:] == ALLOCATE) & (kind[:-1] == ALLOCATE)).any():
            raise StreamError("fills a slot that holds a block already")
        if (follows & (kind[1:] == FREE) & (order[1:] != order[:-1])).any():
            raise StreamError("frees a block with another order than it was allocated with")
