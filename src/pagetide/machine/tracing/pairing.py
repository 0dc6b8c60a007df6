"""Which free ends which allocation: from events to lives of blocks, and how well they fit together.

Most frees name a block just as it was allocated. A block may also be freed in parts (split_page, alloc_pages_exact, a
huge page that was split), as parts of a larger free, or by a path that has no event. So each page's owner is followed.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.jit import kernel
from pagetide.machine.tracing.formats import ALLOC, FORK, FREE
from pagetide.machine.tracing.pages import Events
from pagetide.units import ORDER_MAX

BEFORE = -1
"""The birth of a block that was allocated before the recording began."""

_NO_PAGE = (1 << 32) - 1
"""Page frame numbers above this are those of an allocation that failed (-1)."""

_IN_INTERRUPT = 0x08 | 0x10
"""TRACE_FLAG_HARDIRQ and TRACE_FLAG_SOFTIRQ (include/linux/trace_events.h, Linux 6.12)."""

_PIDS = 1 << 22
"""Process ids are below this (PID_MAX_LIMIT, include/linux/threads.h)."""

_UNKNOWN, _FREE, _FIRST_BLOCK = 0, 1, 2

_Numbers = npt.NDArray[np.int64]


class Pairs(NamedTuple):
    """Lives of blocks as columns; a block that is freed in parts is as many blocks from the beginning.

    Attributes:
        born: int64, the index of the event that allocates it, or BEFORE.
        dies: int64, the index of the event that ends it, or the number of events if none does.
        order: int64.
    """

    born: _Numbers
    dies: _Numbers
    order: _Numbers


class Fit(NamedTuple):
    """How events fit together; numbers of events, but for the pages.

    Attributes:
        allocations: of pages.
        frees: of pages.
        exact: frees of a block as it was allocated.
        parts: frees of a part of a block, or of parts of some.
        there_before: frees of what was allocated before the recording began.
        unmatched: frees of pages that were free already: their allocation has no event.
        overlaps: allocations of pages that were not free: their free has no event.
        failed: allocations that failed.
        allocated_pages: pages allocated.
        freed_pages: pages freed.
    """

    allocations: int
    frees: int
    exact: int
    parts: int
    there_before: int
    unmatched: int
    overlaps: int
    failed: int
    allocated_pages: int
    freed_pages: int


def pair(events: Events) -> tuple[Pairs, Fit]:
    """Follow each page through all events."""
    of_pages = ((events.kind == ALLOC) | (events.kind == FREE)) & (events.value >= 0) & (events.value <= _NO_PAGE)
    ends = events.value[of_pages] + (1 << events.order[of_pages].astype(np.int64))
    first = int(events.value[of_pages].min(initial=_NO_PAGE)) >> ORDER_MAX << ORDER_MAX
    owners = np.zeros(int(ends.max(initial=first)) - first + 1, np.int32)
    allocations = int(np.count_nonzero(events.kind == ALLOC))
    blocks = np.zeros((allocations + _FIRST_BLOCK, 3), np.int64)
    room = len(events.kind) + (1 << ORDER_MAX)
    while True:
        found = np.empty((room, 3), np.int64)
        counts = np.zeros(len(Fit._fields), np.int64)
        owners[:], blocks[:] = _UNKNOWN, 0
        count = _pair(events.kind, events.value, events.order, first, owners, blocks, found, counts)
        if count >= 0:
            return Pairs(*found[:count].T.copy()), Fit(*map(int, counts))
        room *= 2


def chosen(events: Events, own: int, *, family: bool) -> npt.NDArray[np.bool_]:
    """Which allocations belong into the stream; one entry an event.

    Args:
        events: all events.
        own: the recorder's process.
        family: whether only those of processes that the recorder started, and of theirs, outside of interrupts;
            otherwise all but the recorder's own.
    """
    if not family:
        return np.asarray(events.pid != own)
    belongs = np.zeros(len(events.kind), np.bool_)
    _follow_family(events.kind, events.pid, events.value, own, np.zeros(_PIDS, np.bool_), belongs)
    return np.asarray(belongs & (events.flags & _IN_INTERRUPT == 0))


@kernel
def _follow_family(
    kind: npt.NDArray[np.uint8],
    pid: npt.NDArray[np.int32],
    value: _Numbers,
    own: int,
    members: npt.NDArray[np.bool_],
    belongs: npt.NDArray[np.bool_],
) -> None:
    for event in range(len(kind)):
        if kind[event] == FORK and 0 <= value[event] < _PIDS:
            members[value[event]] = pid[event] == own or members[pid[event]]
        belongs[event] = members[pid[event]]


_ALLOCATIONS, _FREES, _EXACT, _PARTS, _THERE_BEFORE, _UNMATCHED, _OVERLAPS, _FAILED, _ALLOCATED, _FREED = range(10)
_BORN, _START, _LEFT = range(3)


@kernel
def _pair(
    kind: npt.NDArray[np.uint8],
    value: _Numbers,
    order: npt.NDArray[np.uint8],
    first: int,
    owners: npt.NDArray[np.int32],
    blocks: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    counts: _Numbers,
) -> int:
    """Fill `found` with birth, death and order of each life; how many, or -1 if it has no room."""
    count, block = 0, _FIRST_BLOCK
    for event in range(len(kind)):
        if kind[event] != ALLOC and kind[event] != FREE:
            continue
        if not 0 <= value[event] <= _NO_PAGE:
            counts[_FAILED] += 1
            continue
        if count + (2 << ORDER_MAX) > len(found):
            return -1
        at, pages = int(value[event]) - first, 1 << int(order[event])
        if kind[event] == ALLOC:
            before = count
            count = _end_pages(owners, blocks, at, pages, event, 0, found, count)
            counts[_OVERLAPS] += count != before
            blocks[block, _BORN], blocks[block, _START], blocks[block, _LEFT] = event, at, pages
            owners[at : at + pages] = block
            block += 1
            counts[_ALLOCATIONS] += 1
            counts[_ALLOCATED] += pages
        else:
            counts[_kind_of_free(owners, blocks, at, pages)] += 1
            count = _end_pages(owners, blocks, at, pages, event, 1, found, count)
            owners[at : at + pages] = _FREE
            counts[_FREES] += 1
            counts[_FREED] += pages
    return _end_rest(owners, blocks, len(kind), found, count)


@kernel
def _kind_of_free(owners: npt.NDArray[np.int32], blocks: npt.NDArray[np.int64], at: int, pages: int) -> int:
    """How a free is counted."""
    owner = np.int64(owners[at])
    if owner >= _FIRST_BLOCK and blocks[owner, _START] == at and blocks[owner, _LEFT] == pages:
        return _EXACT
    unknown = False
    for page in range(at, at + pages):
        if owners[page] >= _FIRST_BLOCK:
            return _PARTS
        unknown = unknown or owners[page] == _UNKNOWN
    return _THERE_BEFORE if unknown else _UNMATCHED


@kernel
def _end_pages(
    owners: npt.NDArray[np.int32],
    blocks: npt.NDArray[np.int64],
    at: int,
    pages: int,
    event: int,
    frees: int,
    found: npt.NDArray[np.int64],
    count: int,
) -> int:
    """End whatever these pages belong to; if this frees them, also what was there before. The new count."""
    end = at + pages
    while at < end:
        owner = np.int64(owners[at])
        run_end = at + 1
        while run_end < end and owners[run_end] == owner:
            run_end += 1
        if owner >= _FIRST_BLOCK:
            blocks[owner, _LEFT] -= run_end - at
            count = _add_run(at, run_end, blocks[owner, _BORN], event, found, count)
        elif owner == _UNKNOWN and frees:
            count = _add_run(at, run_end, BEFORE, event, found, count)
        at = run_end
    return count


@kernel
def _end_rest(
    owners: npt.NDArray[np.int32], blocks: npt.NDArray[np.int64], event: int, found: npt.NDArray[np.int64], count: int
) -> int:
    """What is still allocated at the end stays. The new count, or -1 if there is no room."""
    at = 0
    while at < len(owners):
        owner = np.int64(owners[at])
        run_end = at + 1
        while run_end < len(owners) and owners[run_end] == owner:
            run_end += 1
        if owner >= _FIRST_BLOCK:
            if count + (2 << ORDER_MAX) > len(found):
                return -1
            count = _add_run(at, run_end, blocks[owner, _BORN], event, found, count)
        at = run_end
    return count


@kernel
def _add_run(at: int, end: int, born: int, dies: int, found: npt.NDArray[np.int64], count: int) -> int:
    """These pages as the fewest blocks, each at a multiple of its size. The new count."""
    while at < end:
        size = 0
        while size < ORDER_MAX and at & (1 << size) == 0 and at + (2 << size) <= end:
            size += 1
        found[count, 0], found[count, 1], found[count, 2] = born, dies, size
        count += 1
        at += 1 << size
    return count
