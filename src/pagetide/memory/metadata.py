"""A memory file of which only the metadata is kept: what is resident, and which pages hold what was written to them.

It stands in for guest RAM where time is simulated. Four bits a page: RESIDENT (the file holds it), STAMPED (it holds
what was last written there), EVER (it was written to at some time) and PUNCHED (it was discarded, and not touched
since). So it takes 256 bytes a MiB, and none for what was never touched. Of a file with huge pages it also knows which
2 MiB are still one: a touch brought all of it, and none of it was discarded since.

Kernels find it by its address, as they find real memory. In a region map its descriptor is the negated address: the
kernels of host/memory/pieces.py, which punch a descriptor, then call `punch_metadata` instead of fallocate(2).

Words have 32 bits in use: the sign of a 64-bit word would need care.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pagetide.atomics import load_i64, store_i64
from pagetide.jit import kernel
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES

# The file's words: a header, four for every 32 pages, and one for every 2 MiB.
RESIDENT_PAGES = 0
SMALL_FAULTS = 1
"""First touches that brought one page."""
HUGE_FAULTS = 2
"""First touches that brought 512 of them."""
REFAULTED_PAGES = 3
"""Pages that were stamped, discarded, and stamped again."""
IS_HUGE = 4
REPEATED_PAGES = 5
"""Pages that were discarded although nothing had touched them since they were before."""
GONE_PAGES = 6
"""Resident pages that were discarded, in all."""
_UNITS = 7
"""At which word those for 2 MiB each begin, which say whether it is one huge page."""
PUNCHES = 8
"""Calls that discarded."""
SPLITS = 9
"""Huge pages of which a part was discarded: the kernel splits them first."""
WHOLE_UNITS = 10
"""Huge pages that were discarded whole."""
PUNCHED_PAGES = 11
"""Other resident pages that were discarded, by the size of the piece: word PUNCHED_PAGES + k for 2^k pages and more."""
PIECE_KINDS = 32
_HEADER_WORDS = PUNCHED_PAGES + PIECE_KINDS

_RESIDENT = 0
_STAMPED = 8
_EVER = 16
_PUNCHED = 24
_GROUP_BYTES = 32
_GROUPS_BYTES = 8 * _HEADER_WORDS

_BITS = 5
_LOW = 31
_ALL = 0xFFFF_FFFF
_HUGE_GROUPS = 16
_HUGE_PAGES = 512
_HUGE_SHIFT = 9
_GROUP_WORDS = _GROUP_BYTES // 8

# What discarding costs, an int64 array of picoseconds: a call, a split, a huge page that goes whole, and by the kind of
# the piece each other page.
PRICE_CALL = 0
PRICE_SPLIT = 1
PRICE_UNIT = 2
PRICE_PAGE = 3
PRICES = PRICE_PAGE + PIECE_KINDS


@kernel
def count_ones(word: int) -> int:
    """How many of a word's lower 32 bits are set."""
    word = word - (word >> 1 & 0x5555_5555)
    word = (word & 0x3333_3333) + (word >> 2 & 0x3333_3333)
    word = word + (word >> 4) & 0x0F0F_0F0F
    return (word * 0x0101_0101 & _ALL) >> 24


@kernel
def _mask(group: int, first: int, end: int) -> int:
    """The bits of the pages from `first` to `end` that this group of 32 holds."""
    mask = _ALL
    if group == first >> _BITS:
        mask &= _ALL << (first & _LOW)
    if group == end >> _BITS:
        mask &= (1 << (end & _LOW)) - 1
    return mask & _ALL


@kernel
def _add(address: int, word: int, value: int) -> None:
    store_i64(address + 8 * word, load_i64(address + 8 * word) + value)


@kernel
def _unit_at(address: int, unit: int) -> int:
    """Where it says whether these 2 MiB are one page."""
    return address + 8 * (load_i64(address + 8 * _UNITS) + unit)


@kernel
def _fault(address: int, group: int, fresh: int) -> None:
    """Make a group's pages resident: all of their huge page if the file has such and none of it is here, else these."""
    groups = address + _GROUPS_BYTES
    if load_i64(address + 8 * IS_HUGE) != 0:
        first = group & ~(_HUGE_GROUPS - 1)
        here = 0
        for other in range(first, first + _HUGE_GROUPS):
            here |= load_i64(groups + other * _GROUP_BYTES + _RESIDENT)
        if here == 0:
            for other in range(first, first + _HUGE_GROUPS):
                store_i64(groups + other * _GROUP_BYTES + _RESIDENT, _ALL)
                store_i64(groups + other * _GROUP_BYTES + _PUNCHED, 0)
            store_i64(_unit_at(address, group // _HUGE_GROUPS), 1)
            _add(address, HUGE_FAULTS, 1)
            _add(address, RESIDENT_PAGES, _HUGE_PAGES)
            return
    place = groups + group * _GROUP_BYTES
    store_i64(place + _RESIDENT, load_i64(place + _RESIDENT) | fresh)
    store_i64(place + _PUNCHED, load_i64(place + _PUNCHED) & ~fresh)
    count = count_ones(fresh)
    _add(address, SMALL_FAULTS, count)
    _add(address, RESIDENT_PAGES, count)


@kernel
def stamp_metadata(address: int, page: int, count: int) -> None:
    """Write to pages, making them resident, and count faults and refaults in the header."""
    end = page + count
    for group in range(page >> _BITS, (end - 1 >> _BITS) + 1):
        mask = _mask(group, page, end)
        place = address + _GROUPS_BYTES + group * _GROUP_BYTES
        fresh = mask & ~load_i64(place + _RESIDENT)
        if fresh != 0:
            _fault(address, group, fresh)
        stamped = load_i64(place + _STAMPED)
        if stamped & mask != mask:
            ever = load_i64(place + _EVER)
            lost = ever & mask & ~stamped
            if lost != 0:
                _add(address, REFAULTED_PAGES, count_ones(lost))
            store_i64(place + _STAMPED, stamped | mask)
            store_i64(place + _EVER, ever | mask)


@kernel
def unstamped_pages(address: int, page: int, count: int) -> int:
    """How many of these pages do not hold what was last written to them."""
    end = page + count
    found = 0
    for group in range(page >> _BITS, (end - 1 >> _BITS) + 1):
        missing = _mask(group, page, end) & ~load_i64(address + _GROUPS_BYTES + group * _GROUP_BYTES + _STAMPED)
        if missing != 0:
            found += count_ones(missing)
    return found


@kernel
def _leave_units(address: int, page: int, end: int) -> int:
    """Account for the huge pages that these pages are in, which are none from now on; how many go with whole ones."""
    if load_i64(address + 8 * IS_HUGE) == 0:
        return 0
    whole: int = 0
    for unit in range(page >> _HUGE_SHIFT, (end - 1 >> _HUGE_SHIFT) + 1):
        place = _unit_at(address, unit)
        if load_i64(place) != 0:
            store_i64(place, 0)
            if page <= unit << _HUGE_SHIFT and unit + 1 << _HUGE_SHIFT <= end:
                whole += 1
            else:
                _add(address, SPLITS, 1)
    _add(address, WHOLE_UNITS, whole)
    return whole << _HUGE_SHIFT


@kernel
def punch_metadata(address: int, offset_bytes: int, length_bytes: int) -> int:
    """Discard whole pages, and count the call and what it discards; 0, since it cannot fail."""
    page = offset_bytes >> PAGE_SHIFT
    end = offset_bytes + length_bytes >> PAGE_SHIFT
    gone: int = 0
    repeated: int = 0
    for group in range(page >> _BITS, (end - 1 >> _BITS) + 1):
        mask = _mask(group, page, end)
        place = address + _GROUPS_BYTES + group * _GROUP_BYTES
        resident = load_i64(place + _RESIDENT)
        if resident & mask != 0:
            gone += count_ones(resident & mask)
            store_i64(place + _RESIDENT, resident & ~mask)
            store_i64(place + _STAMPED, load_i64(place + _STAMPED) & ~mask)
        punched = load_i64(place + _PUNCHED)
        if punched & mask != 0:
            repeated += count_ones(punched & mask)
        store_i64(place + _PUNCHED, punched | mask)
    kind = 0
    while end - page >> kind + 1 > 0:
        kind += 1
    _add(address, RESIDENT_PAGES, -gone)
    _add(address, REPEATED_PAGES, repeated)
    _add(address, GONE_PAGES, gone)
    _add(address, PUNCHES, 1)
    _add(address, PUNCHED_PAGES + kind, gone - _leave_units(address, page, end))
    return 0


@kernel
def discarding_ps(words: Any, seen: Any, prices: Any) -> int:
    """What the calls cost that were made since this was asked last, in picoseconds.

    Args:
        words: the file's words.
        seen: int64 array as long as the prices, at first 0, for what was so the last time.
        prices: int64 array of PRICES: what each thing costs.
    """
    cost_ps: int = 0
    for price, word in ((PRICE_CALL, PUNCHES), (PRICE_SPLIT, SPLITS), (PRICE_UNIT, WHOLE_UNITS)):
        cost_ps += (words[word] - seen[price]) * prices[price]
        seen[price] = words[word]
    for kind in range(PIECE_KINDS):
        pages = words[PUNCHED_PAGES + kind]
        cost_ps += (pages - seen[PRICE_PAGE + kind]) * prices[PRICE_PAGE + kind]
        seen[PRICE_PAGE + kind] = pages
    return cost_ps


@kernel
def gone_metadata(address: int, offset_bytes: int, length_bytes: int) -> int:
    """How many bytes of this stretch are not resident."""
    page = offset_bytes >> PAGE_SHIFT
    end = offset_bytes + length_bytes >> PAGE_SHIFT
    here: int = 0
    for group in range(page >> _BITS, (end - 1 >> _BITS) + 1):
        here += count_ones(
            _mask(group, page, end) & load_i64(address + _GROUPS_BYTES + group * _GROUP_BYTES + _RESIDENT)
        )
    return length_bytes - here * PAGE_SIZE_BYTES


class MetadataFile:
    """Owns the words of one such file.

    Attributes:
        words: int64 array: the header, whose words are named above, and the pages' bits. Kernels write to it.
        address: where it is.
    """

    words: npt.NDArray[np.int64]
    address: int

    def __init__(self, size_bytes: int, *, huge: bool = False) -> None:
        """Make a file that is all holes.

        Args:
            size_bytes: a multiple of 2 MiB.
            huge: whether a first touch brings 2 MiB, where none of them is resident.
        """
        assert size_bytes > 0
        assert size_bytes % (_HUGE_PAGES * PAGE_SIZE_BYTES) == 0
        groups = size_bytes >> PAGE_SHIFT + _BITS
        units_at = _HEADER_WORDS + groups * _GROUP_WORDS
        self.words = np.zeros(units_at + groups // _HUGE_GROUPS, np.int64)
        self.words[IS_HUGE], self.words[_UNITS] = huge, units_at
        self.address = self.words.ctypes.data

    @property
    def fd(self) -> int:
        """What stands for its descriptor in a region map."""
        return -self.address

    @property
    def resident_bytes(self) -> int:
        """What of it is resident."""
        return int(self.words[RESIDENT_PAGES]) * PAGE_SIZE_BYTES
