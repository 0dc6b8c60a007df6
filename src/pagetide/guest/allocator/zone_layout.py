"""Where everything is in a zone's arena: one shared memory file that a second process can look at.

The arena is two arrays. `words` (int64) has the zone's settings, lock, counters and free-list lengths, then one block
a vCPU with its per-CPU lists' ends, its hints and its own counters, the spare blocks (isolate.py), on memory pages of
its own the table of frames that a host may share (frame_table.py), the pageblocks' migratetypes
(lists/migratetypes.py), what is on the per-CPU lists (pcp.py), and at its end the map of candidates (candidates.py).
`pages` (uint32) has one record of four words a page frame, and after the last one a sentinel record for each order: the
head of that order's circular free list. With migratetypes there are as many of each. Fields that different processors
write are on different cache lines.

A page record's STATE is 0 in every page of a block but its first; the first has the block's order in bits 0 to 3, what
the block is in bits 4 to 6 and the Reported mark in bit 7, as Linux has PageBuddy, buddy_order and PageReported in
`struct page`. A free block's bits 8 to 31 are the tick at which it became free, an allocated one's the migratetype that
was asked for.
"""

from pagetide.memory.frame_table import table_words
from pagetide.units import COSTLY_ORDER, ORDERS, PAGE_SIZE_BYTES, PAGEBLOCK_ORDER

# The zone's words, by cache line of eight.
NR_PAGES = 0
REPORTING_ORDER = 1
WMARK_MIN = 2
WMARK_LOW = 3
PCP_ORDERS = 4
PCP_BATCH = 5
PCP_HIGH = 6
NR_VCPUS = 7

# Alone on its line: who waits for it takes the line from its holder with every look.
ZONE_LOCK = 8

LOCK_CONTENDED = 16
LOCK_WAIT_NS = 17
LOCK_WAIT_NS_MAX = 18
LOCK_HOLD_NS = 19
LOCK_HOLD_NS_MAX = 20
HOLDS_TIMED = 21
REPEATED_PAGES = 22
KICKS = 23

FREE_PAGES = 24
REPORTED_PAGES = 25
ISOLATED_PAGES = 26
ISOLATED_BLOCKS = 27
ISOLATED_BLOCKS_MAX = 28
BALLOON_PAGES = 29
WALKED_BLOCKS = 30
TAKEN_PAGES = 31

REQUEST = 32
WAKE = 33
PASSES = 34
IDLE_PASSES = 35

# What a design asked for when it started (request.py, isolate.py).
NOTIFY_SPLITS = 40
KEEP_MARKS = 41
RECORDING = 42
WAKE_BLOCKS = 43
TICK = 44
COOL_TICKS = 45
IN_FLIGHT_MAX_PAGES = 46
HINTS_MAX = 47

# What the free path recorded, under the zone lock.
HINTS = 48
DROPPED_HINTS = 49
DROPPED_PAGES = 50
SPARES = 51
SPARES_MAX = 52
FALSE_OOMS = 53
SYNC_HINTS = 54

# Where in `words` the frame table is, once a design has begun to keep it; 0 before and after (frames.py).
FRAME_TABLE = 55

NR_FREE = 56
NR_REPORTED = NR_FREE + 16

WMARK_HIGH = 88
PCP_HIGH_MAX = 89

# Where in `words` the map of candidates begins, with its leaves; one level after the other, up to one word.
MAP_BASE = 90

# Where in `words` the pageblocks' migratetypes are, a word each, if free lists are by migratetype; else 0. The orders
# that have per-CPU lists are in TYPED_PCP_ORDERS then, and PCP_ORDERS is 0: so the common path of a zone without
# migratetypes looks at neither.
PAGEBLOCKS = 91
TYPED_PCP_ORDERS = 92

_VCPUS = 96

# Migratetypes, and how many there are; which of Linux's each is, and its fallbacks, is said in lists/migratetypes.py.
MOVABLE = 0
UNMOVABLE = 1
RECLAIMABLE = 2
MIGRATETYPES = 3

# A vCPU's words, from the base that vcpu_base gives.
PCP_LOCK = 0
PCP_COUNT = 1
PCP_LIMIT = 2
PCP_FREED = 3
PCP_LISTS = 4
PCP_RINGS = 14
PCP_ROOM = 15
TYPE_WORDS = 16
STAMP_ERRORS = MIGRATETYPES * TYPE_WORDS
REFAULTED_PAGES = STAMP_ERRORS + 1
STOP = STAMP_ERRORS + 2
WAIT_HOST_NS_MAX = STAMP_ERRORS + 3
WAIT_HOST_NS = STAMP_ERRORS + 4
WAITS_HOST = STAMP_ERRORS + 5
HINT_COUNT = STAMP_ERRORS + 8
HINT_BLOCKS = HINT_COUNT + 8
HINT_BLOCKS_MAX = 1024
VCPU_WORDS = HINT_BLOCKS + HINT_BLOCKS_MAX

# A per-CPU list's words, from PCP_LISTS + LIST_WORDS * list on: where in its ring the oldest block is, and where the
# next one goes; both count on over the ring's end. Lists are of the orders up to COSTLY_ORDER, and the last one of the
# huge page's. Their rings are one after the other from where in `words` PCP_RINGS says, each with room for PCP_ROOM
# pages, which does not change. What is so of a further migratetype is TYPE_WORDS behind that of the one before; nothing
# else is there.
OLDEST = 0
END = 1
LIST_WORDS = 2
NR_LISTS = COSTLY_ORDER + 2

PCP_FRACTION = 8
"""What share of a zone all per-CPU lists may grow to (mm/page_alloc.c, MIN_PERCPU_PAGELIST_HIGH_FRACTION, 6.12)."""

_PCP_ROOM_ORDER_MIN = 9

# Values of RECORDING: what the free path keeps of each free block of at least the reporting order.
RECORD_NOTHING = 0
RECORD_UNREPORTED = 1
RECORD_HINT_MAP = 2
RECORD_HINT_ARRAYS = 3

# Values of KEEP_MARKS: what becomes of the Reported mark when blocks split and merge.
DROP_MARKS = 0
KEEP_WHOLE_MARKS = 1
"""Halves of a reported block are reported, and so is what two of them merge into; any other merge drops the mark."""
KEEP_APART = 2
"""Blocks of at least the reporting order merge with their like alone, and what is unreported is allocated first."""

SPARES_MAX_BLOCKS = 1 << 14

# States of REQUEST, as in Linux's mm/page_reporting.c.
REQUEST_IDLE = 0
REQUEST_REQUESTED = 1
REQUEST_ACTIVE = 2

# A page record's words.
RECORD_WORDS = 4
NEXT = 0
PREVIOUS = 1
STATE = 2
GENERATION = 3

# The fields of STATE.
ORDER_MASK = 0xF
TYPE_MASK = 0x70
BUDDY = 0x10
ALLOCATED = 0x20
PCP = 0x30
ISOLATED = 0x40
SPARE = 0x50
BALLOON = 0x60
HELD = 0x70
REPORTED = 0x80
TICK_SHIFT = 8
TICK_MASK = 0xFF_FFFF
MIGRATETYPE_SHIFT = 8

# Which list, or what is to be allocated, in one number: the order, and from this bit on the migratetype.
LISTED_SHIFT = 4


def vcpu_base(vcpu: int) -> int:
    """Index in `words` of this vCPU's block."""
    return _VCPUS + vcpu * VCPU_WORDS


def map_words(nr_pages: int) -> int:
    """Length of the map of candidates: a tree of words with 32 bits each, a leaf bit a page."""
    total, level = 0, nr_pages
    while level > 1:
        level = -(-level // 32)
        total += level
    return max(1, total)


def frame_table_base(vcpus: int) -> int:
    """Index in `words` where the frame table begins, on a memory page's boundary."""
    page_words = PAGE_SIZE_BYTES // 8
    return -(-(vcpu_base(vcpus) + SPARES_MAX_BLOCKS) // page_words) * page_words


def pageblocks_base(nr_pages: int, vcpus: int) -> int:
    """Index in `words` where the pageblocks' migratetypes begin."""
    return frame_table_base(vcpus) + table_words(nr_pages)


def pcp_room(nr_pages: int, vcpus: int, pcp_max: int) -> int:
    """How many pages a per-CPU list has room for: more than a vCPU's share of an eighth of the zone, or than `pcp_max`.

    It is a power of two.
    """
    return 1 << max(_PCP_ROOM_ORDER_MIN, min(nr_pages // PCP_FRACTION // vcpus, pcp_max).bit_length())


def rings_base(nr_pages: int, vcpus: int, pcp_max: int, vcpu: int = 0, migratetype: int = 0) -> int:
    """Index in `words` where a vCPU's rings begin of a migratetype; each is half as long as the one before."""
    before = vcpu * MIGRATETYPES + migratetype
    pageblocks = (nr_pages >> PAGEBLOCK_ORDER) + 1
    return pageblocks_base(nr_pages, vcpus) + pageblocks + before * 2 * pcp_room(nr_pages, vcpus, pcp_max)


def words_count(nr_pages: int, vcpus: int, pcp_max: int) -> int:
    """Length of `words`, where a vCPU's lists grow to `pcp_max` pages at most."""
    return rings_base(nr_pages, vcpus, pcp_max, vcpus) + map_words(nr_pages)


def records_count(nr_pages: int, migratetypes: int) -> int:
    """Length of `pages`: the frames' records and the list heads'."""
    return (nr_pages + ORDERS * migratetypes) * RECORD_WORDS


def arena_bytes(nr_pages: int, vcpus: int, pcp_max: int) -> int:
    """Size of the whole arena, in whole pages, with migratetypes or without."""
    used_bytes = 8 * words_count(nr_pages, vcpus, pcp_max) + 4 * records_count(nr_pages, MIGRATETYPES)
    return -(-used_bytes // PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES
