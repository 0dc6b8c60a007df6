"""Where a kernel's trace events have what we read of them, from what the kernel says itself.

Each event has a file `events/SYSTEM/NAME/format` with an id and its fields' offsets and sizes, and `events/header_page`
says what stands before the events of a page of the ring buffer (Linux 6.12, Documentation/trace/events.rst and
kernel/trace/ring_buffer.c).
"""

import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ALLOC, FREE, DRAIN, REFILL, FORK, MARK = range(6)
"""Kinds of events. DRAIN and REFILL are between a per-CPU list and the free lists; MARK is written by the recorder."""

EVENTS = {
    ALLOC: "kmem/mm_page_alloc",
    FREE: "kmem/mm_page_free",
    DRAIN: "kmem/mm_page_pcpu_drain",
    REFILL: "kmem/mm_page_alloc_zone_locked",
    FORK: "sched/sched_process_fork",
    MARK: "ftrace/print",
}
"""Which event of the kernel each kind is."""

RECORDED = tuple(name for kind, name in EVENTS.items() if kind != MARK)
"""Events that are switched on; marks need no switch."""

HEADER_PAGE = "header_page"

_VALUES = {ALLOC: "pfn", FREE: "pfn", DRAIN: "pfn", REFILL: "pfn", FORK: "child_pid"}
_ORDERS = {ALLOC: "order", FREE: "order", DRAIN: "order", REFILL: "order"}
_COMMON = {"common_type": (0, 2), "common_flags": (2, 1), "common_pid": (4, 4)}
_FIELD = re.compile(r"field:[^;]*?(\w+)(?:\[[^\]]*\])?;\s*offset:(\d+);\s*size:(\d+);")
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)


class FormatError(ValueError):
    """The kernel's events look otherwise than is understood here; the message is a sentence without a full stop."""


class Layout(NamedTuple):
    """What a reader of the ring buffer's pages has to know, in words of 4 bytes.

    Attributes:
        page_bytes: size of a page of the ring buffer.
        commit_word: where the page says how many bytes of events it has.
        data_word: where its events begin.
        kinds: int64 array, the kind of each event id; -1 for others.
        values: int64 array, for each kind where its page frame or process is; -1 if there is none.
        wide: int64 array, whether that has 8 bytes.
        orders: int64 array, for each kind where its order is; -1 if there is none.
        migratetypes: the same of its migratetype.
    """

    page_bytes: int
    commit_word: int
    data_word: int
    kinds: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    wide: npt.NDArray[np.int64]
    orders: npt.NDArray[np.int64]
    migratetypes: npt.NDArray[np.int64]


def read_layout(texts: Mapping[str, str]) -> Layout:
    """The layout of pages and events.

    Args:
        texts: the kernel's files: HEADER_PAGE, and the format of each of EVENTS by its name.

    Raises:
        FormatError: one is missing, or has a field where it cannot be read.
    """
    if sys.byteorder != "little":
        raise FormatError("only the events of little-endian kernels are read")
    header = _fields(texts, HEADER_PAGE)
    data_at, data_bytes = header["data"]
    ids = {kind: _event_id(texts, name) for kind, name in EVENTS.items()}
    kinds = np.full(max(ids.values()) + 1, -1, np.int64)
    values, wide, orders, migratetypes = (np.full(len(EVENTS), -1, np.int64) for _ in range(4))
    for kind, name in EVENTS.items():
        fields = _fields(texts, name)
        for field, place in _COMMON.items():
            if fields.get(field) != place:
                raise FormatError(f"the event {name} has {field} at {fields.get(field)}, not at {place}")
        kinds[ids[kind]] = kind
        if kind in _VALUES:
            values[kind], value_bytes = _word(fields, name, _VALUES[kind], (4, 8))
            wide[kind] = value_bytes == 8
        if kind in _ORDERS:
            orders[kind], _ = _word(fields, name, _ORDERS[kind], (4,))
    migratetypes[ALLOC], _ = _word(_fields(texts, EVENTS[ALLOC]), EVENTS[ALLOC], "migratetype", (4,))
    commit_word, _ = _word(header, HEADER_PAGE, "commit", (4, 8))
    return Layout(data_at + data_bytes, commit_word, data_at // 4, kinds, values, wide, orders, migratetypes)


def _fields(texts: Mapping[str, str], name: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each field."""
    if name not in texts:
        raise FormatError(f"the kernel has no trace event {name}")
    return {field: (int(offset), int(size)) for field, offset, size in _FIELD.findall(texts[name])}


def _event_id(texts: Mapping[str, str], name: str) -> int:
    found = _ID.search(texts.get(name, ""))
    if found is None:
        raise FormatError(f"the kernel has no trace event {name}")
    return int(found[1])


def _word(fields: Mapping[str, tuple[int, int]], event: str, name: str, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Which word a field is, and its size."""
    offset, size = fields.get(name, (-1, 0))
    if size not in sizes or offset % 4:
        raise FormatError(f"the event {event} has no field {name} that can be read")
    return offset // 4, size
