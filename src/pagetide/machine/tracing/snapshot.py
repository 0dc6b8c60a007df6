"""What a kernel says of its memory at one moment: /proc's buddyinfo, pagetypeinfo, zoneinfo and vmstat."""

import re
from collections.abc import Mapping
from typing import NamedTuple

FILES = ("buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat")
"""Files in /proc that a snapshot is of. Only root may read the second one. The last one counts what is allocated."""

STAT_REFRESH = "/proc/sys/vm/stat_refresh"
"""Reading this brings what processors keep to themselves into the counters (mm/vmstat.c, vmstat_refresh)."""

_ON_LISTS = re.compile(r"^\s+cpu: \d+\s+count:\s+(\d+)", re.MULTILINE)
_PAGESET = re.compile(r"^\s+cpu: \d+\s+count:\s+\d+\s+high:\s+(\d+)", re.MULTILINE)


class Snapshot(NamedTuple):
    """One moment.

    Attributes:
        free_blocks: by order, of all zones.
        free_by_type: for each migratetype its free blocks by order.
        listed_pages: on all per-CPU lists.
        list_limit_pages: the most that any of them may hold (`high`).
        free_pages: on the free lists.
        allocated_pages: by the kernel's counters since it booted.
        freed_pages: by the kernel's counters since it booted.
        migrated_pages: moved by compaction and the like, whose targets are allocated without an event.
    """

    free_blocks: tuple[int, ...]
    free_by_type: dict[str, tuple[int, ...]]
    listed_pages: int
    list_limit_pages: int
    free_pages: int
    allocated_pages: int
    freed_pages: int
    migrated_pages: int


def read_snapshot(texts: Mapping[str, str]) -> Snapshot:
    """From the texts of FILES."""
    counters = {name: int(count) for name, count in (line.split() for line in texts["vmstat"].splitlines() if line)}
    buddies = [line.split()[4:] for line in texts["buddyinfo"].splitlines() if line.startswith("Node")]
    zones = texts["zoneinfo"]
    return Snapshot(
        _sum(buddies),
        _free_by_type(texts["pagetypeinfo"]),
        sum(int(count) for count in _ON_LISTS.findall(zones)),
        max((int(limit) for limit in _PAGESET.findall(zones)), default=0),
        counters["nr_free_pages"],
        sum(count for name, count in counters.items() if name.startswith("pgalloc_")),
        counters["pgfree"],
        counters.get("pgmigrate_success", 0),
    )


def _free_by_type(text: str) -> dict[str, tuple[int, ...]]:
    """Lines such as `Node 0, zone DMA32, type Movable 1 0 2`; a count that is too large is `>100000`."""
    rows: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        place, found, rest = line.partition(", type")
        if found and place.startswith("Node"):
            name, *counts = rest.split()
            rows.setdefault(name, []).append([count.lstrip(">") for count in counts])
    return {name: _sum(counts) for name, counts in rows.items()}


def _sum(rows: list[list[str]]) -> tuple[int, ...]:
    return tuple(sum(map(int, column)) for column in zip(*rows, strict=True))
