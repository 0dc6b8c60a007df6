"""What was recorded of a kernel, and what becomes of it: a stream, and an account of how far it can be trusted."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.guest.allocator.zone_layout import MOVABLE, RECLAIMABLE, UNMOVABLE
from pagetide.machine.tracing.formats import ALLOC, DRAIN, EVENTS, REFILL, read_layout
from pagetide.machine.tracing.formats import FREE as FREED
from pagetide.machine.tracing.pages import Events, marks, read_events
from pagetide.machine.tracing.pairing import BEFORE, Fit, Pairs, chosen, pair
from pagetide.machine.tracing.snapshot import Snapshot, read_snapshot
from pagetide.units import COSTLY_ORDER, PAGEBLOCK_ORDER
from pagetide.workload.lives import slots
from pagetide.workload.stream import Mark, Stream

TIME_DIGITS = 3
"""Times in a stream are whole milliseconds: with finer ones a file has twice as many bytes an operation."""

Whose = Literal["all", "others", "family"]
"""Whose allocations a stream has: everybody's; all but the recorder's own; those of processes that it started."""

THERE_BEFORE = "there before"
"""The first stretch of a stream: what had been allocated before, and was freed while the recording went on."""


_MIGRATETYPES = (UNMOVABLE, MOVABLE, RECLAIMABLE)
"""What the kernel's numbers from 0 on stand for (MIGRATE_UNMOVABLE and so on, include/linux/mmzone.h, Linux 6.12)."""


class RecordingError(ValueError):
    """A recording of which no stream can be made; the message is a sentence without a full stop."""


class Recording(NamedTuple):
    """All that was taken from a kernel.

    Attributes:
        formats: what `read_layout` wants.
        pages: uint8 array, a row a page of the ring buffer.
        cpus: uint16 array, whose each page is.
        marks: names of the marks that were written, in order; the last one is the end.
        before: what `read_snapshot` wants, just before the first mark.
        after: the same, just after the last one.
        lost: events that found no room in the kernel's buffers.
    """

    formats: dict[str, str]
    pages: npt.NDArray[np.uint8]
    cpus: npt.NDArray[np.uint16]
    marks: tuple[str, ...]
    before: dict[str, str]
    after: dict[str, str]
    lost: int


class Account(NamedTuple):
    """How far a recording can be trusted.

    Attributes:
        events: read in all.
        lost: that found no room.
        gaps: pages of the ring buffer that say that something is missing before them.
        fit: how allocations and frees fit together.
        before: the kernel's own account at the beginning.
        after: the kernel's own account at the end.
        listed_pages: on per-CPU lists at the end by what the events say, to be set against `after`.
        listed_peak_pages: the most that ever were, by the same.
    """

    events: int
    lost: int
    gaps: int
    fit: Fit
    before: Snapshot
    after: Snapshot
    listed_pages: int
    listed_peak_pages: int

    @property
    def shares(self) -> dict[str, float]:
        """What is wrong, as shares, by sentences that say of what."""
        fit = self.fit
        allocated = self.after.allocated_pages - self.before.allocated_pages
        freed = self.after.freed_pages - self.before.freed_pages
        return {
            "of the events were lost": self.lost / max(1, self.events + self.lost),
            "of the frees are of pages whose allocation has no event": fit.unmatched / max(1, fit.frees),
            "of the allocations are of pages whose free has no event": fit.overlaps / max(1, fit.allocations),
            "of the pages that the kernel counts as allocated have no event": _missing(fit.allocated_pages, allocated),
            "of the pages that the kernel counts as freed have no event": _missing(fit.freed_pages, freed),
        }

    def troubles(self, accept_share: float) -> list[str]:
        """Sentences on what is above this share; an empty list if nothing is."""
        return [f"{share:.1%} {what}" for what, share in self.shares.items() if share > accept_share]


def _missing(seen: int, counted: int) -> float:
    return max(0.0, 1 - seen / counted) if counted > 0 else 0.0


def read_recording(recording: Recording, whose: Whose) -> tuple[Stream, Account]:
    """A stream of the operations that were recorded, and how far it can be trusted.

    Args:
        recording: what was recorded.
        whose: what of it the stream has.

    Raises:
        RecordingError: nothing is in it, or marks are lost.
        FormatError: the kernel's events look otherwise than is understood.
        BrokenPageError: its pages cannot be read.
    """
    events, gaps = read_events(recording.pages, recording.cpus, read_layout(recording.formats))
    at = marks(events)
    if len(at) != len(recording.marks):
        raise RecordingError(
            f"of {len(recording.marks)} marks {len(at)} were found: the kernel's buffers were too small"
        )
    pairs, fit = pair(events)
    if whose != "all":
        pairs = _only(pairs, chosen(events, int(events.pid[at[0]]), family=whose == "family"), whose)
    before, after = read_snapshot(recording.before), read_snapshot(recording.after)
    listed = before.listed_pages + _listed(events)
    account = Account(
        len(events.kind), recording.lost, gaps, fit, before, after, int(listed[-1]), max(0, int(listed.max()))
    )
    return _stream(events, pairs, at, recording.marks), account


def _listed(events: Events) -> npt.NDArray[np.int64]:
    """How many pages more than at first are on per-CPU lists after each event.

    Blocks up to PAGE_ALLOC_COSTLY_ORDER and huge pages go there when freed and come from there, and between the lists
    and the zone's there are events (mm/page_alloc.c, pcp_allowed_order, Linux 6.12).
    """
    pages = 1 << events.order.astype(np.int64)
    pages[(events.order > COSTLY_ORDER) & (events.order != PAGEBLOCK_ORDER)] = 0
    signs = np.zeros(len(EVENTS), np.int64)
    signs[[FREED, REFILL]], signs[[ALLOC, DRAIN]] = 1, -1
    return np.cumsum(pages * signs[events.kind])


def _only(pairs: Pairs, belongs: npt.NDArray[np.bool_], whose: Whose) -> Pairs:
    """The lives whose allocations belong into the stream; a family has none from before it began."""
    kept = np.where(pairs.born == BEFORE, whose != "family", belongs[pairs.born])
    return Pairs(*(column[kept] for column in pairs))


def _stream(events: Events, pairs: Pairs, at: npt.NDArray[np.int64], names: tuple[str, ...]) -> Stream:
    """Operations in the order of their events: each frees what its event ends before it allocates.

    What was there before is taken for movable: nothing says what it was.
    """
    ends = np.flatnonzero(pairs.dies < len(events.kind))
    if not len(pairs.born):
        raise RecordingError("no allocation was recorded that belongs into the stream")
    block = np.concatenate([np.arange(len(pairs.born)), ends])
    event = np.concatenate([pairs.born, pairs.dies[ends]])
    kind = np.repeat(np.array([ALLOCATE, FREE], np.uint8), [len(pairs.born), len(ends)])
    rows = np.lexsort((kind == ALLOCATE, event))
    block, event, kind = block[rows], event[rows], kind[rows]
    begin_ns, end_ns = events.at_ns[at[0]], events.at_ns[at[-1]]
    at_s = _seconds(np.clip(np.where(event == BEFORE, begin_ns, events.at_ns[event]), begin_ns, end_ns) - begin_ns)
    # Who was there before is said to have been allocated where it is freed.
    where = events.cpu[np.where(pairs.born == BEFORE, np.minimum(pairs.dies, len(events.kind) - 1), pairs.born)]
    vcpu = where[block]
    slot = np.zeros(len(rows), np.int32)
    for one in np.unique(vcpu):
        own = np.flatnonzero(vcpu == one)
        slot[own] = slots(kind[own], block[own])
    freed_by = np.where(kind == FREE, events.cpu[event], vcpu).astype(np.uint16)
    migratetype = np.full(len(rows), MOVABLE, np.uint8)
    known = np.flatnonzero((kind == ALLOCATE) & (event != BEFORE))
    migratetype[known] = np.take(_MIGRATETYPES, events.migratetype[event[known]], mode="clip")
    end_s = float(_seconds(end_ns - begin_ns))
    order = pairs.order.astype(np.uint8)[block]
    stretches = _marks(event, at, names)
    stream = Stream(at_s, kind, order, slot, vcpu.astype(np.uint16), stretches, end_s, freed_by, migratetype)
    return stream.with_slots_by_freer()


def _seconds(ns: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.round(np.asarray(ns) / 1e9, TIME_DIGITS)


def _marks(event: npt.NDArray[np.int64], at: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[Mark, ...]:
    """Where each stretch begins; one without an operation is left out."""
    firsts = np.searchsorted(event, at[:-1])
    found = [Mark(0, THERE_BEFORE)] if event[0] == BEFORE else []
    for first, name in zip(firsts.tolist(), names[:-1], strict=True):
        if found and found[-1].first == first:
            found.pop()
        found.append(Mark(first if found else 0, name))
    return tuple(mark for mark in found if mark.first < len(event))
