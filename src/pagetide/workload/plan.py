"""A workload as blocks, each with a birth and a death, whose operations are made in pieces, when they are wanted.

A day of a large guest has hundreds of millions of operations, and a plan of it takes a byte or two a block: what all
blocks of a part have in common is kept once. Each vCPU's births of a part are in order, and so are its deaths; merging
them gives its operations. Of operations that are due at the same time, allocations come first, in the order of the
parts and of their blocks.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import ALLOCATE, FREE, OPERATION
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import Lives, slots
from pagetide.workload.stream import PIECE_OPERATIONS, Mark, Piece, Stream, Stretch

_Times = npt.NDArray[np.float64]


class Moment(NamedTuple):
    """A place between two operations: what is due before this time is before it.

    Attributes:
        at_s: on the stream's clock.
        allocated: whether it is behind the allocations that are due at that time.
        freed: whether it is behind the frees, too.
    """

    at_s: float
    allocated: bool = False
    freed: bool = False


def behind(at_s: float) -> Moment:
    """The moment behind all that is due then."""
    return Moment(at_s, allocated=True, freed=True)


BEGIN = Moment(0.0)
"""Before everything."""


class _Blocks(NamedTuple):
    """One vCPU's blocks of one part.

    Attributes:
        order: of each.
        number: of the first among the vCPU's blocks.
        place: its first slot among the vCPU's.
        places: how many it has; its blocks take them in turn, each again and again.
    """

    order: npt.NDArray[np.uint8]
    number: int
    place: int
    places: int


class _Events(NamedTuple):
    """Their births, or their deaths, in the order in which they come.

    Attributes:
        kind: ALLOCATE or FREE.
        vcpu: whose.
        blocks: of which blocks.
        at_s: float64, when; one number again and again (stride 0) where all come at once.
        which: which block each is about, None if they come in the order of the blocks.
    """

    kind: int
    vcpu: int
    blocks: _Blocks
    at_s: _Times
    which: npt.NDArray[np.intp] | None

    def before(self, moment: Moment) -> int:
        """How many come before a moment."""
        is_behind = moment.allocated if self.kind == ALLOCATE else moment.freed
        return _before(self.at_s, moment.at_s, including=is_behind)

    def orders(self, begin: int, end: int) -> npt.NDArray[np.uint8]:
        """The orders of some of the blocks."""
        return self.blocks.order[begin:end] if self.which is None else self.blocks.order[self.which[begin:end]]

    def numbers(self, begin: int, end: int) -> npt.NDArray[np.intp]:
        """Which of the part's blocks they are."""
        return np.arange(begin, end) if self.which is None else self.which[begin:end]

    def fill(self, rows: npt.NDArray[np.void], begin: int, end: int, first_slot: int) -> None:
        """Write some of them as operations, on slots that begin there."""
        blocks = self.blocks
        rows["kind"], rows["order"] = self.kind, self.orders(begin, end)
        rows["slot"] = first_slot + blocks.place + self.numbers(begin, end) % blocks.places


_Some = tuple[_Events, int, int]
"""Events from one index up to another."""


class Plan:
    """What a workload does: a `Work`, which simulated machines run in pieces, and `whole` makes a stream of.

    Attributes:
        marks: where stretches begin, as a stream has them.
        end_s: when it is over on its clock.
        has_migratetypes: nothing is said of what can be moved.
    """

    has_migratetypes = False

    def __init__(self, parts: Sequence[Lives], begins: Sequence[tuple[Moment, Mark]], end_s: float) -> None:
        """Take its blocks.

        Args:
            parts: them; what is born or dies after `end_s` is left out.
            begins: when each stretch begins, and its mark, whose `first` is not looked at; of two that begin at the
                same operation the later one counts.
            end_s: when it is over.
        """
        self.end_s = end_s
        self._events, slots_of = _events(parts, end_s)
        self.slot_firsts = np.concatenate([[0], np.cumsum(slots_of, dtype=np.int64)])
        found: dict[int, tuple[Mark, list[int]]] = {}
        for moment, mark in begins:
            cut = [events.before(moment) for events in self._events]
            found[sum(cut)] = mark._replace(first=sum(cut)), cut
        self.marks = tuple(found[first][0] for first in sorted(found))
        self._cuts = [found[first][1] for first in sorted(found)] + [[len(one.at_s) for one in self._events]]

    @property
    def nr_operations(self) -> int:
        """How many operations it has."""
        return sum(self._cuts[-1])

    @property
    def vcpus(self) -> int:
        """How many vCPUs it takes."""
        return len(self.slot_firsts) - 1

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The stretches between its marks, in order."""
        made, from_s, nothing = [], 0.0, [0] * len(self._events)
        for mark, cut, end in zip(self.marks, self._cuts, self._cuts[1:], strict=False):
            until_s = max((float(one.at_s[at - 1]) for one, _, at in self._between(nothing, end)), default=0.0)
            some = self._between(cut, end)
            first_s = min((float(events.at_s[begin]) for events, begin, _ in some), default=None)
            made.append(Stretch(mark, from_s, until_s, first_s, _allocated_bytes(some)))
            from_s = until_s
        return tuple(made)

    def pieces(self, vcpu: int) -> Iterator[Piece]:
        """What one vCPU does, as `Work` has it."""
        first_slot = int(self.slot_firsts[vcpu]) if vcpu < self.vcpus else 0
        for cut, end in pairwise(self._cuts):
            some = [one for one in self._between(cut, end) if one[0].vcpu == vcpu]
            for taken, is_last in _merged(some):
                yield _piece(taken, first_slot, is_last)

    def whole(self) -> Stream:
        """All operations as one stream; of slots there are as few as there are blocks at once."""
        stream = _stream(self._between([0] * len(self._events), self._cuts[-1]), self.marks, self.end_s)
        for vcpu in range(self.vcpus):
            own = np.flatnonzero(stream.vcpu == vcpu)
            stream.slot[own] = slots(stream.kind[own], stream.slot[own].astype(np.int64))
        return stream

    def _between(self, begins: Sequence[int], ends: Sequence[int]) -> list[_Some]:
        """The events between two cuts, without those of which none is there."""
        return [one for one in zip(self._events, begins, ends, strict=True) if one[1] < one[2]]


def plan_of(*parts: Lives, name: str, end_s: float, starting: str | None = None) -> Plan:
    """The plan of these blocks as one stretch.

    Args:
        parts: the blocks.
        name: the stretch's.
        end_s: when it is over on its clock.
        starting: what is due at 0 s, of which there is something, is a stretch of its own by this name: the clock
            stands still until it is done.
    """
    if starting is None:
        return Plan(parts, [(BEGIN, Mark(0, name))], end_s)
    return Plan(parts, [(BEGIN, Mark(0, starting)), (behind(0.0), Mark(0, name))], end_s)


def _events(parts: Sequence[Lives], end_s: float) -> tuple[list[_Events], list[int]]:
    """All births and then all deaths, in the order in which they come when they are due at once; each vCPU's slots."""
    births: list[_Events] = []
    deaths: list[_Events] = []
    rooms: list[_Rooms] = []
    for part in parts:
        for vcpu in _who(part):
            rooms += [_Rooms() for _ in range(vcpu + 1 - len(rooms))]
            own = part if _is_one(part.vcpu) else Lives(*(_chosen(column, part.vcpu == vcpu) for column in part))
            born_s, births_of = _sorted(own.born_s, end_s)
            dies_s, deaths_of = _sorted(own.dies_s, end_s)
            if len(born_s):
                places = len(own.order) if births_of is not None else _places(own)
                last_s = float(dies_s[-1]) if len(dies_s) == len(own.order) else math.inf
                number, place = rooms[vcpu].take(len(own.order), places, float(born_s[0]), last_s)
                blocks = _Blocks(own.order, number, place, places)
                births.append(_Events(ALLOCATE, vcpu, blocks, born_s, births_of))
                deaths.append(_Events(FREE, vcpu, blocks, dies_s, deaths_of))
    return births + deaths, [room.slots for room in rooms]


class _Rooms:
    """One vCPU's slots, of which a part has a room for as long as one of its blocks is there."""

    def __init__(self) -> None:
        self.slots = 0
        self._blocks = 0
        self._rooms: list[tuple[float, int, int]] = []  # when it is free again, its first slot, how many it has

    def take(self, blocks: int, places: int, from_s: float, until_s: float) -> tuple[int, int]:
        """A part's first number, and its first slot: of a room that is free by then, or of a new one."""
        number, self._blocks = self._blocks, self._blocks + blocks
        for index, (free_s, first, count) in enumerate(self._rooms):
            if free_s < from_s and count >= places:
                self._rooms[index] = until_s, first, count
                return number, first
        self._rooms.append((until_s, self.slots, places))
        self.slots += places
        return number, self.slots - places


def _who(part: Lives) -> list[int]:
    """The vCPUs that have blocks of a part."""
    return [int(vcpu) for vcpu in np.unique(part.vcpu[:1] if _is_one(part.vcpu) else part.vcpu)]


def _is_one(column: npt.NDArray[np.generic]) -> bool:
    """Whether a column is one value, kept once."""
    return column.strides == (0,)


def _chosen(column: Any, which: npt.NDArray[np.bool_]) -> Any:
    """The entries of some blocks."""
    return np.broadcast_to(column[0], int(which.sum())) if _is_one(column) else column[which]


def _sorted(times: _Times, end_s: float) -> tuple[_Times, npt.NDArray[np.intp] | None]:
    """Times up to the end in order, and of which block each is; None if that is the order of the blocks."""
    which = None
    if not _is_one(times) and (times[1:] < times[:-1]).any():
        which = np.argsort(times, kind="stable")
        times = times[which]
    count = _before(times, end_s, including=True)
    return times[:count], None if which is None else which[:count]


def _places(part: Lives) -> int:
    """How many slots blocks need that are born in order, and take them in turn."""
    blocks = len(part.order)
    if _is_one(part.born_s) or _is_one(part.dies_s):
        return blocks
    return int((np.searchsorted(part.born_s, part.dies_s, "right") - np.arange(blocks)).max())


def _before(times: _Times, at_s: float, *, including: bool) -> int:
    """How many of some times in order are before this one, or not behind it."""
    if _is_one(times) and len(times):
        return len(times) if times[0] < at_s or (including and times[0] == at_s) else 0
    return int(np.searchsorted(times, at_s, "right" if including else "left"))


def _merged(some: list[_Some]) -> Iterator[tuple[list[_Some], bool]]:
    """Parts of these events, about a piece at once, so that each part's come before the next one's; which is the last.

    At once they are taken up to the earliest event that is left out: what is due at its time is before it if it is of
    events that come first in the list.
    """
    while True:
        share = max(1, PIECE_OPERATIONS // max(1, len(some)))
        left_out = [
            (float(events.at_s[begin + share]), place)
            for place, (events, begin, end) in enumerate(some)
            if begin + share < end
        ]
        until_s, last = min(left_out, default=(math.inf, len(some)))
        taken = []
        for place, (events, begin, end) in enumerate(some):
            stop = min(begin + share, end)
            if place != last:
                stop = begin + _before(events.at_s[begin:stop], until_s, including=place < last)
            taken.append((events, begin, stop))
        some = [(events, stop, end) for (events, _, stop), (_, _, end) in zip(taken, some, strict=True) if stop < end]
        yield [one for one in taken if one[1] < one[2]], not some
        if not some:
            return


def _in_order(taken: list[_Some]) -> tuple[_Times, npt.NDArray[np.intp] | slice]:
    """When each of these events comes, in order, and where each of that order was."""
    at_s = np.concatenate([events.at_s[begin:end] for events, begin, end in taken] or [np.empty(0)])
    rows = np.argsort(at_s, kind="stable") if len(taken) > 1 else slice(None)
    return at_s[rows], rows


def _piece(taken: list[_Some], first_slot: int, is_last: bool) -> Piece:
    at_s, rows = _in_order(taken)
    made, done = np.empty(len(at_s), OPERATION), 0
    for events, begin, end in taken:
        events.fill(made[done : done + end - begin], begin, end, first_slot)
        done += end - begin
    return Piece(made[rows], at_s, is_last)


def _stream(some: list[_Some], marks: tuple[Mark, ...], end_s: float) -> Stream:
    """Events as a stream, with blocks' numbers for slots."""
    at_s, rows = _in_order(some)
    count = len(at_s)
    stream = Stream(
        at_s, np.empty(count, np.uint8), np.empty(count, np.uint8), np.empty(count, np.int32),
        np.empty(count, np.uint16), marks, end_s,
    )  # fmt: skip
    for column, parts in (
        (stream.kind, [np.full(end - begin, events.kind) for events, begin, end in some]),
        (stream.order, [events.orders(begin, end) for events, begin, end in some]),
        (stream.slot, [events.blocks.number + events.numbers(begin, end) for events, begin, end in some]),
        (stream.vcpu, [np.full(end - begin, events.vcpu) for events, begin, end in some]),
    ):
        column[:] = np.concatenate(parts)[rows] if parts else []
    return stream


def _allocated_bytes(some: list[_Some]) -> int:
    pages = 0
    for events, begin, end in some:
        if events.kind == ALLOCATE:
            counts = np.bincount(events.orders(begin, end))
            pages += int((counts << np.arange(len(counts))).sum())
    return pages * PAGE_SIZE_BYTES
