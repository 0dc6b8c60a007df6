"""The map of candidates: which positions hold a block worth a look, found again without a walk over the others.

One bit a position (a page frame number over the reporting order), and above it a tree: a bit of a higher level says
that one of the 32 words' bits below it is set. Setting, clearing and finding the next set bit from a position take one
step a level, so their cost does not depend on how many blocks are free. What a set bit means is the design's: an
unreported free block (RECORD_UNREPORTED), or a hint, which may be stale (RECORD_HINT_MAP).

Words have 32 bits in use: the sign of a 64-bit word would need care. The caller holds the zone lock.
"""

from typing import Any

from pagetide.guest.allocator.zone_layout import MAP_BASE, NR_PAGES
from pagetide.jit import inline_kernel, kernel

_BITS = 5
_LOW = 31
_ALL = 0xFFFF_FFFF


@inline_kernel
def map_set(words: Any, position: int) -> bool:
    """Set a bit; whether it was clear."""
    level, count = words[MAP_BASE], words[NR_PAGES]
    bit = 1 << (position & _LOW)
    if words[level + (position >> _BITS)] & bit:
        return False
    while True:
        index = level + (position >> _BITS)
        before = words[index]
        words[index] = before | 1 << (position & _LOW)
        words_here = (count + _LOW) >> _BITS
        if before != 0 or words_here <= 1:
            return True
        level += words_here
        count = words_here
        position >>= _BITS


@inline_kernel
def map_clear(words: Any, position: int) -> bool:
    """Clear a bit; whether it was set."""
    level, count = words[MAP_BASE], words[NR_PAGES]
    bit = 1 << (position & _LOW)
    if not words[level + (position >> _BITS)] & bit:
        return False
    while True:
        index = level + (position >> _BITS)
        words[index] &= ~(1 << (position & _LOW))
        words_here = (count + _LOW) >> _BITS
        if words[index] != 0 or words_here <= 1:
            return True
        level += words_here
        count = words_here
        position >>= _BITS


@kernel
def map_next(words: Any, position: int) -> int:
    """The first set position from this one on; -1 if there is none."""
    level, count, height = words[MAP_BASE], words[NR_PAGES], 0
    while True:
        words_here = (count + _LOW) >> _BITS
        if position >> _BITS >= words_here:
            return -1
        found = words[level + (position >> _BITS)] & (_ALL << (position & _LOW)) & _ALL
        if found != 0:
            position = (position >> _BITS << _BITS) + _lowest(found)
            break
        if words_here <= 1:
            return -1
        position = (position >> _BITS) + 1
        level += words_here
        count = words_here
        height += 1
    while height > 0:
        height -= 1
        count = words[NR_PAGES]
        level = words[MAP_BASE]
        for _ in range(height):
            count = (count + _LOW) >> _BITS
            level += count
        position = (position << _BITS) + _lowest(words[level + position])
    return position


@kernel
def map_reset(words: Any) -> None:
    """Clear every bit."""
    for index in range(words[MAP_BASE], words.shape[0]):
        words[index] = 0


@kernel
def _lowest(word: int) -> int:
    """Index of the lowest set bit of a word that is not 0."""
    index = 0
    if word & 0xFFFF == 0:
        word >>= 16
        index = 16
    if word & 0xFF == 0:
        word >>= 8
        index += 8
    if word & 0xF == 0:
        word >>= 4
        index += 4
    if word & 0x3 == 0:
        word >>= 2
        index += 2
    return index if word & 1 else index + 1
