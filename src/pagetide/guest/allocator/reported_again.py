"""Counting what is reported although nothing touched it since it was last reported: work that gains nothing."""

from typing import Any

from pagetide.guest.allocator.zone_layout import GENERATION, ORDER_MASK, RECORD_WORDS, REPEATED_PAGES
from pagetide.jit import kernel

UNTOUCHED = 1 << 31
"""In a page record's GENERATION: the page was reported, and has not been stamped since."""


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
