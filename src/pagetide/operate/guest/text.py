"""Reads the text of the guest script. It is whatever somebody sends: every byte of it is doubted.

A part that this kernel has not, or that the script could not read, is missing from the facts. A part that is not of its
form makes the whole text one that is not believed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from pagetide.operate.guest.facts import (
    DEFAULT_ORDER,
    ORDERS_MAX,
    Consumer,
    GuestBalloon,
    GuestFacts,
    GuestZone,
    HugePool,
)
from pagetide.operate.sizes import LARGEST

TEXT_BYTES_MAX = 8 << 20
"""A longer text is none: that of 1024 processors has 2 MiB."""

_MARK = "@pagetide "
_BEGIN, _END = f"{_MARK}guest 1", f"{_MARK}end"
_WORD_MAX = 200
_PARTS_MAX = 4096
_MEMINFO = re.compile(r"([A-Za-z0-9_()]+):\s+(\d{1,20})( kB)?")
_VMSTAT = re.compile(r"([A-Za-z0-9_]+) (-?\d{1,20})")
_BUDDY = re.compile(r"Node (\d{1,6}), zone\s+(\w+)((?:\s+\d{1,20})+)")
_ZONE = re.compile(r"Node (\d{1,6}), zone\s+(\w+)")
_ZONE_FIGURE = re.compile(r"(pages free|low|count:|high:|high_max:)\s+(\d{1,20})")
_POOL = re.compile(r"(\d{1,12}) (\d{1,15}) (\d{1,15})")
_BALLOON = re.compile(r"(driver|none) ([01]{1,128}|-)")
_BLOCK_ORDER = re.compile(r"Page block order:\s+(\d{1,3})")
_PARTIAL = re.compile(r"(\d{1,12}) (\d{1,15})")
_BLOCKS = re.compile(r"([0-9a-f]{1,12}) (\d{1,12})")
_CONSUMER = re.compile(r"([a-z.]{1,20}) ([12]) (\d{1,20}) (\d{1,20}) (\d{1,20})")
_CONSUMERS_MAX = 16
_FLAGS = re.compile(r"(\d{1,12})\s+([0-9a-f]{16})")
_KINDS = (
    (20, "no memory"), (10, "free"), (26, "page tables"), (7, "slab"), (23, "in the balloon or offline"),
    (17, "huge pages of a pool"), (12, "of processes"), (5, "of files"), (18, "of files, not to be dropped"),
    (32, "reserved"),
)  # fmt: skip
"""Bits of /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst, Linux 6.18) and what they say."""
_NAMED = re.compile(r"(\w+) (-?\d{1,20})")


class GuestTextError(ValueError):
    """This is no text of the guest script; the message says where it is wrong."""


def read_guest_text(data: bytes) -> GuestFacts:
    """What the text says.

    Raises:
        GuestTextError: it is no text of the guest script, or a part of it is not of its form.
    """
    if len(data) > TEXT_BYTES_MAX:
        raise GuestTextError(f"the guest's text is longer than {TEXT_BYTES_MAX >> 20} MiB")
    sections, unread = _sections(data)
    if "meminfo" not in sections:
        raise GuestTextError("the guest's text has no meminfo, without which nothing can be said")
    page_bytes = _page_bytes(sections)
    meminfo = dict(_meminfo(sections["meminfo"]))
    if not 0 < meminfo.get("MemFree", 0) <= meminfo.get("MemTotal", 0):
        raise GuestTextError("the guest's text has no MemTotal, or a MemFree that does not fit into it")
    return GuestFacts(
        release=_first(sections, "release"),
        page_bytes=page_bytes,
        parameters=tuple(line[:_WORD_MAX] for line in sections.get("parameters", ())[:100]),
        meminfo=meminfo,
        vmstat=_vmstat(sections.get("vmstat", ())),
        zones=_zones(sections, page_bytes),
        pools=tuple(_pools(sections.get("hugepages", ()))),
        reporting_order=_reporting_order(sections.get("reporting", ())),
        pageblock_order=_pageblock_order(sections.get("pagetypeinfo", ())),
        balloons=tuple(_balloons(sections.get("balloons", ()))),
        percpu_pagelist_high_fraction=_named(sections.get("sysctl", ())).get("percpu_pagelist_high_fraction"),
        unread=tuple(unread),
        partial_bytes=_partial_bytes(sections.get("partial", ())),
        offline_bytes=_offline_bytes(sections.get("blocks", ())),
        consumers=tuple(_consumers(sections.get("cgroups", ()))),
        sampled_pages=_sampled_pages(sections.get("kpageflags", ())),
    )


def _sections(data: bytes) -> tuple[dict[str, list[str]], list[str]]:
    """Lines by part, and the names of parts that could not be read. What a console put around the text is left out."""
    lines = [line.strip() for line in data.decode(errors="replace").splitlines()]
    if _BEGIN not in lines:
        raise GuestTextError(f"this is no text of the guest script: it has no line {_BEGIN!r}")
    start = len(lines) - 1 - lines[::-1].index(_BEGIN)
    if _END not in lines[start:]:
        raise GuestTextError("the guest's text is cut short: its last line is missing")
    sections: dict[str, list[str]] = {}
    unread: list[str] = []
    current: list[str] = []
    for line in lines[start + 1 : lines.index(_END, start)]:
        if not line.startswith(_MARK):
            if line:
                current.append(line)
            continue
        name, _, state = line.removeprefix(_MARK).partition(" ")
        if name in sections or len(sections) > _PARTS_MAX or len(name) > _WORD_MAX:
            raise GuestTextError(f"the guest's text has the part {name[:_WORD_MAX]!r} twice, or too many parts")
        current = []
        if state == "unreadable":
            unread.append(name)
        elif state != "missing":
            sections[name] = current
    return sections, unread


def _number(text: str, where: str) -> int:
    value = int(text)
    if value > LARGEST:
        raise GuestTextError(f"{where} in the guest's text is more than can be: {text}")
    return value


def _matches(pattern: re.Pattern[str], lines: Sequence[str], where: str) -> Iterator[re.Match[str]]:
    if len(lines) > 100_000:
        raise GuestTextError(f"{where} in the guest's text is too long")
    for line in lines:
        match = pattern.fullmatch(line)
        if match is None:
            raise GuestTextError(f"{where} in the guest's text has a line {line[:60]!r}, which is not of its form")
        yield match


def _first(sections: dict[str, list[str]], name: str) -> str:
    return next(iter(sections.get(name, ())), "not known")[:_WORD_MAX]


def _page_bytes(sections: dict[str, list[str]]) -> int:
    page_kib = _named(sections.get("pages", ())).get("page_kib", 4)
    if page_kib not in {4, 8, 16, 64, 256}:
        raise GuestTextError(f"the guest's text has pages of {page_kib} KiB, which no Linux has")
    return page_kib << 10


def _meminfo(lines: Sequence[str]) -> Iterator[tuple[str, int]]:
    for match in _matches(_MEMINFO, lines, "meminfo"):
        yield match[1][:_WORD_MAX], _number(match[2], "meminfo") << (10 if match[3] else 0)


def _vmstat(lines: Sequence[str]) -> dict[str, int]:
    """Figures that are counters of all processors can be below 0 for a moment."""
    return {match[1]: max(0, _number(match[2], "vmstat")) for match in _matches(_VMSTAT, lines, "vmstat")}


def _named(lines: Sequence[str]) -> dict[str, int]:
    found = (_NAMED.fullmatch(line) for line in lines[:100])
    return {match[1]: min(max(0, int(match[2])), LARGEST) for match in found if match}


def _zones(sections: dict[str, list[str]], page_bytes: int) -> tuple[GuestZone, ...]:
    """Zones that have free blocks or per-CPU lists; zoneinfo's lines of other figures are many, and not asked."""
    blocks: dict[tuple[int, str], tuple[int, ...]] = {}
    for match in _matches(_BUDDY, sections.get("buddyinfo", ()), "buddyinfo"):
        counts = tuple(_number(word, "buddyinfo") for word in match[3].split())
        if len(counts) > ORDERS_MAX + 1:
            raise GuestTextError(f"buddyinfo in the guest's text has {len(counts)} orders, which no Linux has")
        blocks[int(match[1]), match[2][:_WORD_MAX]] = counts
    figures = _zone_figures(sections.get("zoneinfo", ()))
    zones = []
    for (node, name), counts in blocks.items():
        of_zone = figures.get((node, name), {})
        pages = sum(count << order for order, count in enumerate(counts))
        size = {key: _number(str(value * page_bytes), "zoneinfo") for key, value in of_zone.items()}
        zones.append(
            GuestZone(
                node=node,
                name=name,
                free_bytes=_number(str(pages * page_bytes), "buddyinfo"),
                low_bytes=size.get("low", 0),
                pcp_bytes=size.get("count:", 0),
                pcp_high_bytes=size.get("high_max:", size.get("high:", 0)),
                blocks=counts,
            )
        )
    return tuple(zones)


def _zone_figures(lines: Sequence[str]) -> dict[tuple[int, str], dict[str, int]]:
    """Pages by zone and name; those of all processors' lists are added up."""
    figures: dict[tuple[int, str], dict[str, int]] = {}
    current: dict[str, int] = defaultdict(int)
    for line in lines:
        if match := _ZONE.fullmatch(line):
            current = figures.setdefault((int(match[1]), match[2][:_WORD_MAX]), defaultdict(int))
        elif match := _ZONE_FIGURE.fullmatch(line):
            current[match[1]] += _number(match[2], "zoneinfo")
    return figures


def _pools(lines: Sequence[str]) -> Iterator[HugePool]:
    for match in _matches(_POOL, lines[:64], "hugepages"):
        size_kib, pages, free = (int(match[index]) for index in (1, 2, 3))
        if free > pages:
            raise GuestTextError("hugepages in the guest's text has more free pages than pages")
        _number(str((size_kib << 10) * pages), "hugepages")
        yield HugePool(page_bytes=size_kib << 10, pages=pages, free_pages=free)


def _balloons(lines: Sequence[str]) -> Iterator[GuestBalloon]:
    for match in _matches(_BALLOON, lines[:64], "balloons"):
        bits = "" if match[2] == "-" else match[2][:62]
        features = sum(1 << place for place, bit in enumerate(bits) if bit == "1")
        yield GuestBalloon(has_driver=match[1] == "driver", features=features)


def _partial_bytes(lines: Sequence[str]) -> int | None:
    sizes = [(int(match[1]) << 10) * int(match[2]) for match in _matches(_PARTIAL, lines[:64], "partial")]
    return _number(str(sum(sizes)), "partial") if sizes else None


def _offline_bytes(lines: Sequence[str]) -> int | None:
    for match in _matches(_BLOCKS, lines[:1], "blocks"):
        return _number(str(int(match[1], 16) * int(match[2])), "blocks")
    return None


def _consumers(lines: Sequence[str]) -> list[Consumer]:
    found = [
        Consumer(
            name=match[1],
            level=int(match[2]),
            charged_bytes=_number(match[3], "cgroups"),
            process_bytes=_number(match[4], "cgroups"),
            shared_bytes=_number(match[5], "cgroups"),
        )
        for match in _matches(_CONSUMER, lines[:1000], "cgroups")
    ]
    return sorted(found, key=lambda each: -each.charged_bytes)[:_CONSUMERS_MAX]


def _sampled_pages(lines: Sequence[str]) -> dict[str, int]:
    """By kind; a page is of the first kind that one of its flags says."""
    pages: dict[str, int] = defaultdict(int)
    for match in _matches(_FLAGS, lines[:10_000], "kpageflags"):
        flags = int(match[2], 16)
        kind = next((kind for bit, kind in _KINDS if flags >> bit & 1), "without a flag")
        pages[kind] += _number(match[1], "kpageflags")
    return dict(pages)


def _reporting_order(lines: Sequence[str]) -> int | None:
    """None for -1 and for an order above the largest, with which the kernel begins: nobody has registered."""
    for line in lines:
        match = _NAMED.fullmatch(line)
        if match and match[1] == "page_reporting_order" and 0 <= int(match[2]) <= 10:
            return int(match[2])
    return None


def _pageblock_order(lines: Sequence[str]) -> int:
    found = (_BLOCK_ORDER.fullmatch(line) for line in lines[:20])
    orders = [int(match[1]) for match in found if match and int(match[1]) <= ORDERS_MAX]
    return orders[0] if orders else DEFAULT_ORDER
