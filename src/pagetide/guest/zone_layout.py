"""Where everything is in a zone's arena: one shared memory file that a second process can look at.

The arena is two arrays. `words` (int64) has the zone's settings, lock, counters and free-list lengths, then one block
a vCPU with its per-CPU list and its own counters. `pages` (uint32) has one record of four words a page frame, and
after the last one a sentinel record for each order: the head of that order's circular free list. Fields that
different processors write are on different cache lines.

A page record's STATE is 0 in every page of a block but its first; the first has the block's order in bits 0 to 3, what
the block is in bits 4 to 6 and the Reported mark in bit 7, as Linux has PageBuddy, buddy_order and PageReported in
`struct page`.
"""

from pagetide.units import ORDERS, PAGE_SIZE_BYTES

# The zone's words, by cache line of eight.
NR_PAGES = 0
REPORTING_ORDER = 1
WMARK_MIN = 2
WMARK_LOW = 3
WMARK_HIGH = 4
PCP_BATCH = 5
PCP_HIGH = 6
NR_VCPUS = 7

ZONE_LOCK = 8

LOCK_CONTENDED = 16
LOCK_WAIT_NS = 17
LOCK_WAIT_NS_MAX = 18

FREE_PAGES = 24
REPORTED_PAGES = 25
ISOLATED_PAGES = 26
ISOLATED_BLOCKS = 27
ISOLATED_BLOCKS_MAX = 28

REQUEST = 32
WAKE = 33
NOTIFY_SPLITS = 34

NR_FREE = 40
NR_REPORTED = NR_FREE + 16
_VCPUS = NR_REPORTED + 16

# A vCPU's words, from the base that vcpu_base gives.
PCP_LOCK = 0
PCP_COUNT = 8
STAMP_ERRORS = 16
REFAULTED_PAGES = 17
STOP = 18
WAIT_HOST_NS_MAX = 19
PCP_PAGES = 24
PCP_PAGES_MAX = 488
VCPU_WORDS = PCP_PAGES + PCP_PAGES_MAX

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
REPORTED = 0x80


def vcpu_base(vcpu: int) -> int:
    """Index in `words` of this vCPU's block."""
    return _VCPUS + vcpu * VCPU_WORDS


def words_count(vcpus: int) -> int:
    """Length of `words`."""
    return vcpu_base(vcpus)


def records_count(nr_pages: int) -> int:
    """Length of `pages`: the frames' records and the list heads'."""
    return (nr_pages + ORDERS) * RECORD_WORDS


def arena_bytes(nr_pages: int, vcpus: int) -> int:
    """Size of the whole arena, in whole pages."""
    used_bytes = 8 * words_count(vcpus) + 4 * records_count(nr_pages)
    return -(-used_bytes // PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES
