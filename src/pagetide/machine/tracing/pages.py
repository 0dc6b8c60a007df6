"""From pages of the kernel's ring buffer to columns of events.

A page has the time of its first event, how many bytes of events it has, and the events: a header of 4 bytes with a
length and the time since the event before, then the event (kernel/trace/ring_buffer.c and
include/linux/ring_buffer.h, Linux 6.12). Lengths above 28 words and below 1 stand for padding and for longer times.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.jit import kernel
from pagetide.machine.tracing.formats import MARK, Layout

EVENT_BYTES_MIN = 12
"""No event is shorter: its header and the fields that all have."""

_COMMIT_MASK = (1 << 20) - 1
_GAP_BEFORE = 1 << 31
_ID_MASK = 0xFFFF
_LENGTH_BITS, _DELTA_BITS = 5, 27
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_TIME_STAMP_BITS = 59

_AT, _NOW, _GAPS = range(3)
"""What a reader keeps: the word that it is at, the time there, and how many pages say that something is missing."""

_KINDS: tuple[type[np.generic], ...] = (np.int64, np.uint8, np.uint8, np.int32, np.int64, np.uint8, np.uint8)
"""Of the columns that are read: all but the processor."""

_Words = npt.NDArray[np.int32]
_Numbers = npt.NDArray[np.int64]


class Events(NamedTuple):
    """Events as columns, in the order in which they happened.

    Attributes:
        at_ns: int64, by the trace's clock.
        kind: uint8, as in `formats`.
        cpu: uint16, where it happened.
        flags: uint8, `common_flags`: whether it was in an interrupt.
        pid: int32, whose task ran there; of a FORK the parent.
        value: int64, page frame number; of a FORK the child.
        order: uint8, of the block.
        migratetype: uint8, of an ALLOC, by the kernel's own numbers.
    """

    at_ns: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    cpu: npt.NDArray[np.uint16]
    flags: npt.NDArray[np.uint8]
    pid: npt.NDArray[np.int32]
    value: npt.NDArray[np.int64]
    order: npt.NDArray[np.uint8]
    migratetype: npt.NDArray[np.uint8]


class BrokenPageError(ValueError):
    """A page of the ring buffer that cannot be read; the message is a sentence without a full stop."""


def read_events(pages: npt.NDArray[np.uint8], cpus: npt.NDArray[np.uint16], layout: Layout) -> tuple[Events, int]:
    """Read all pages, and bring the events of all processors into one order.

    Args:
        pages: uint8 array, a row a page of `layout.page_bytes`; those of one processor in their order.
        cpus: uint16 array, whose each is.
        layout: where things are.

    Returns:
        The events, and how many pages say that some were lost before them.

    Raises:
        BrokenPageError: a page does not keep to the layout.
    """
    parts, gaps = [], 0
    for cpu in np.unique(cpus):
        own = pages[cpus == cpu]
        room = own.size // EVENT_BYTES_MIN + 1
        columns: list[Any] = [np.empty(room, kind) for kind in _KINDS]
        words = np.ascontiguousarray(own).view(np.int32).reshape(-1)
        cursor = np.zeros(3, np.int64)
        count = _decode(
            words, len(own), layout.page_bytes // 4, layout.commit_word, layout.data_word,
            layout.kinds, layout.values, layout.wide, layout.orders, layout.migratetypes, cursor, *columns,
        )  # fmt: skip
        if count < 0:
            raise BrokenPageError(f"page {-count - 1} of processor {cpu} has an event that reaches beyond it")
        at_ns, kind, flags, pid, value, order, migratetype = (column[:count].copy() for column in columns)
        parts.append(Events(at_ns, kind, np.full(count, cpu, np.uint16), flags, pid, value, order, migratetype))
        gaps += int(cursor[_GAPS])
    if not parts:
        raise BrokenPageError("nothing was recorded")
    together: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    rows = np.argsort(together[0], kind="stable")
    columns = [column[rows] for column in together]
    return Events(*columns), gaps


def marks(events: Events) -> npt.NDArray[np.int64]:
    """Which events are the recorder's marks."""
    return np.flatnonzero(events.kind == MARK)


@kernel
def _decode(
    words: _Words,
    nr_pages: int,
    page_words: int,
    commit_word: int,
    data_word: int,
    kinds: _Numbers,
    values: _Numbers,
    wide: _Numbers,
    orders: _Numbers,
    migratetypes: _Numbers,
    cursor: _Numbers,
    at_ns: _Numbers,
    kind: npt.NDArray[np.uint8],
    flags: npt.NDArray[np.uint8],
    pid: npt.NDArray[np.int32],
    value: _Numbers,
    order: npt.NDArray[np.uint8],
    migratetype: npt.NDArray[np.uint8],
) -> int:
    """Read one processor's pages; how many events, or -1 less the index of a page that is broken."""
    count = 0
    for page in range(nr_pages):
        first = page * page_words
        cursor[_NOW] = _word(words, first) | _word(words, first + 1) << 32
        commit = _word(words, first + commit_word)
        cursor[_GAPS] += commit & _GAP_BEFORE != 0
        cursor[_AT] = first + data_word
        end = first + data_word + ((commit & _COMMIT_MASK) >> 2)
        if end > first + page_words:
            return -1 - page
        while cursor[_AT] < end:
            body = _advance(words, int(end), cursor)
            if body < 0:
                return -1 - page
            if body == 0:
                continue
            common = _word(words, body)
            this = kinds[common & _ID_MASK] if common & _ID_MASK < len(kinds) else -1
            if this < 0:
                continue
            if body + max(values[this] + wide[this], orders[this], migratetypes[this], 1) >= cursor[_AT]:
                return -1 - page
            at_ns[count], kind[count], flags[count] = cursor[_NOW], this, common >> 16 & 0xFF
            pid[count] = words[body + 1]
            value[count] = _number(words, body, values[this], wide[this])
            order[count] = words[body + orders[this]] if orders[this] >= 0 else 0
            migratetype[count] = words[body + migratetypes[this]] if migratetypes[this] >= 0 else 0
            count += 1
    return count


@kernel
def _word(words: _Words, at: int) -> int:
    """One word, unsigned."""
    return int(words[at]) & 0xFFFFFFFF


@kernel
def _number(words: _Words, body: int, at: int, wide: int) -> int:
    """A field of 4 bytes, unsigned, or of 8, signed, as the -1 is that stands for no page; -1 if there is none."""
    if at < 0:
        return -1
    low = _word(words, body + at)
    return low | int(words[body + at + 1]) << 32 if wide else low


@kernel
def _advance(words: _Words, end: int, cursor: _Numbers) -> int:
    """Go past one entry; where its event begins, 0 if it is none, -1 if it is broken."""
    at = cursor[_AT]
    head, body = _word(words, at), at + 1
    length, delta = head & _LENGTH_MASK, head >> _LENGTH_BITS
    if 0 < length < _PADDING:
        cursor[_AT], cursor[_NOW] = body + length, cursor[_NOW] + delta
        return body if body + length <= end else -1
    if length == _PADDING and delta == 0:  # nothing more on this page
        cursor[_AT] = end
        return 0
    if body >= end:
        return -1
    more = _word(words, body)
    if length >= _TIME_EXTEND:
        base = cursor[_NOW]
        if length == _TIME_STAMP:  # absolute, without its highest bits
            base = base >> _TIME_STAMP_BITS << _TIME_STAMP_BITS
        cursor[_AT], cursor[_NOW] = body + 1, base + delta + (more << _DELTA_BITS)
        return 0
    # The length is in the next word: of an event, or of one that was taken back, whose time has passed all the same.
    cursor[_AT], cursor[_NOW] = body + ((more + 3) >> 2), cursor[_NOW] + delta
    if not body < cursor[_AT] <= end:
        return -1
    return body + 1 if length == 0 else 0
