"""Bytes, pages and orders: the conversions, and how sizes are read from and shown to people."""

import re

PAGE_SHIFT = 12
"""log2 of the page size; pages are 4 KiB, as on x86-64 and in the balloon's own units (virtio 1.2, 5.5.6)."""

PAGE_SIZE_BYTES = 1 << PAGE_SHIFT
"""Bytes in a page."""

MIB = 1 << 20
"""Bytes in a MiB."""

GIB = 1 << 30
"""Bytes in a GiB."""

HUGE_PAGE_BYTES = 2 * MIB
"""Bytes in a huge page of x86-64."""

ORDER_MAX = 10
"""The largest block is 2^10 pages, 4 MiB: Linux's `MAX_ORDER - 1` up to 6.3, `MAX_PAGE_ORDER` since."""

PAGEBLOCK_ORDER = 9
"""Linux's pageblock_order on x86-64: a huge page, the largest block that an application commonly asks for."""

COSTLY_ORDER = 3
"""Linux's PAGE_ALLOC_COSTLY_ORDER: larger blocks are not expected to be at hand."""

ORDERS = ORDER_MAX + 1
"""How many orders there are."""

_SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def block_bytes(order: int) -> int:
    """Bytes in a block of this order."""
    return PAGE_SIZE_BYTES << order


SIZE_BYTES_MAX = 1 << 63
"""Sizes are below this."""

_TEXT_MAX = 40


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."


def parse_size(text: str) -> int:
    """Read a size such as `512MiB`, `2G` or `4096` as bytes; suffixes are powers of 1024.

    Raises:
        ValueError: the text is not a size, or not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{_cut(text)!r} is not a size; write it like 2GiB, 512M or 4096")
    size_bytes = float(match[1]) * _SUFFIXES[match[2].lower()]
    if size_bytes >= SIZE_BYTES_MAX:
        raise ValueError(f"{_cut(text)!r} is more bytes than can be counted")
    if size_bytes != int(size_bytes):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size_bytes)


def format_size(size_bytes: float) -> str:
    """Show a number of bytes with the largest binary unit that keeps it at least 1, as in `1.5 GiB`."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    digits = 0 if unit == "B" or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
