"""What reporting costs, as the zone counts it: how long it keeps the zone lock, and what it reports for nothing.

Every vCPU that allocates or frees may have to wait for the lock (S6). Only holds for isolating and putting back are
timed, a batch of blocks each: timing the allocator's own holds, of some ten nanoseconds, would cost more than they do.
What is reported although nothing touched it since it was last reported is work that gains nothing.
"""

from typing import Any

from pagetide.atomics import monotonic_ns
from pagetide.guest.allocator.zone_layout import (
    GENERATION,
    HOLDS_TIMED,
    LOCK_HOLD_NS,
    LOCK_HOLD_NS_MAX,
    ORDER_MASK,
    RECORD_WORDS,
    REPEATED_PAGES,
)
from pagetide.jit import kernel

UNTOUCHED = 1 << 31
"""In a page record's GENERATION: the page was reported, and has not been stamped since."""


@kernel
def hold_begins(words: Any) -> int:
    """The zone lock was taken; the time in nanoseconds, or 0 in a zone whose time is not the clock's."""
    if words[HOLDS_TIMED] == 0:
        return 0
    return monotonic_ns()


@kernel
def hold_ends(words: Any, since_ns: int) -> None:
    """The zone lock is about to be released: account for the time since `hold_begins`."""
    if since_ns > 0:
        held_ns = monotonic_ns() - since_ns
        words[LOCK_HOLD_NS] += held_ns
        words[LOCK_HOLD_NS_MAX] = max(words[LOCK_HOLD_NS_MAX], held_ns)


@kernel
def note_reported(words: Any, pages: Any, batch: Any) -> None:
    """Count a batch's pages that had been reported already, and mark all of them so.

    Args:
        words: the zone's words.
        pages: its page records.
        batch: int64 array of the blocks, which are still isolated: nobody else looks at their records.
    """
    repeated = 0
    for block in batch:
        first = block >> 4
        for page in range(first, first + (1 << (block & ORDER_MASK))):
            place = page * RECORD_WORDS + GENERATION
            if pages[place] & UNTOUCHED:
                repeated += 1
            pages[place] |= UNTOUCHED
    words[REPEATED_PAGES] += repeated
