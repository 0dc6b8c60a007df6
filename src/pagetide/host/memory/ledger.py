"""The host's account of what a guest reported, or gave to the balloon, and what became of it.

The words live in one int64 array, so that kernels update them in place and another process that maps the same memory
reads them while the device works. There is one writer. Each word is written whole, but not all words at once: a reader
of a live array can see an element that is only half accounted for. Between two elements

    reported_bytes = discarded_bytes + the skipped bytes of every reason
    discarded_bytes >= checked_bytes >= verified_bytes >= returned_bytes

Reports, inflated and deflated pages have an account of the same words each, one after the other; kernels get the view
of the one that they write. In the deflate account nothing is discarded: what is not skipped is usable again.

This file imports nothing that compiles, so that a viewer starts fast.
"""

import numpy as np
import numpy.typing as npt

REPORTS = 0
"""Elements taken from the reporting queue."""
BLOCKS = 1
"""Descriptors in them."""
REPORTED_BYTES = 2
"""What the descriptors named, by their lengths."""
DISCARDED_BYTES = 3
"""What the discarding calls covered, where they returned success. A call on memory that was already gone counts too."""
CHECKED_BYTES = 4
"""How much of the discarded was read back."""
VERIFIED_BYTES = 5
"""How much of the checked was found gone."""
PUNCHES = 6
"""Discarding calls made, the failed ones included."""
ZERO_LENGTH_BLOCKS = 7
"""Descriptors of length zero: nothing to discard, so a count and not bytes."""
SKIPPED_UNALIGNED = 8
"""Bytes not discarded because their address, length or place in the file is no multiple of a page."""
SKIPPED_OUT_OF_RANGE = 9
"""Bytes not discarded because no one memory region holds all of the descriptor."""
SKIPPED_DEVICE_READABLE = 10
"""Bytes not discarded because the descriptor is device-readable: the driver gave them to be read, not overwritten."""
SKIPPED_REPEATED = 11
"""Bytes that an earlier descriptor of the same element had named already; they are discarded once."""
SKIPPED_FAILED = 12
"""Bytes whose discarding call failed."""

SKIPPED_POISONED = 13
"""Bytes not discarded because the driver expects them to read as its `poison_val`, and not as zeros."""
SKIPPED_INHIBITED = 14
"""Bytes not discarded because discarding is inhibited for this guest."""
MALFORMED = 15
"""Descriptors that are no array of page frame numbers, or hold more of them than is taken."""
SKIPPED_PARTIAL = 16
"""Bytes not discarded because they are a part of a huge page of hugetlbfs, of which other parts are not out."""
RETURNED_BYTES = 17
"""How much of the checked the host held when it was discarded, in RAM or in swap, and then no more: what came back.

The rest of what is verified gone was gone before, or never there.
"""

_ACCOUNT_NAMES = (
    "reports",
    "blocks",
    "reported_bytes",
    "discarded_bytes",
    "checked_bytes",
    "verified_bytes",
    "punches",
    "zero_length_blocks",
    "skipped_unaligned_bytes",
    "skipped_out_of_range_bytes",
    "skipped_device_readable_bytes",
    "skipped_repeated_bytes",
    "skipped_failed_bytes",
    "skipped_poisoned_bytes",
    "skipped_inhibited_bytes",
    "malformed",
    "skipped_partial_bytes",
    "returned_bytes",
)

ACCOUNT_WORDS = len(_ACCOUNT_NAMES)
"""Length of one account."""

REPORT_ACCOUNT = slice(0, ACCOUNT_WORDS)
"""Where the reporting queue's account is."""
INFLATE_ACCOUNT = slice(ACCOUNT_WORDS, 2 * ACCOUNT_WORDS)
"""Where the inflate queue's is; its *reports* are elements and its *blocks* pages."""
DEFLATE_ACCOUNT = slice(2 * ACCOUNT_WORDS, 3 * ACCOUNT_WORDS)
"""Where the deflate queue's is."""

HINTS = 3 * ACCOUNT_WORDS
"""Free page hints that belonged to a hinting round of the device's."""
HINTED_BYTES = HINTS + 1
"""What they named within the guest's memory."""
HINTS_STALE = HINTS + 2
"""Hints outside such a round, which mean nothing."""
STATISTICS = HINTS + 3
"""Times that the guest told its memory statistics."""
REFAULTED_BYTES = HINTS + 4
"""Returned pages that were there again, each counted once for each time that it was returned.

Whether they are is looked for now and then; and a page that is returned anew before that is known to have been there.
Memory that was discarded without having been there is none of it, nor is what was not checked: of that nobody knows
whether it was returned. A large piece that was only weighed and was not all there counts for nothing.
"""

WORD_NAMES = (
    *_ACCOUNT_NAMES,
    *(f"inflate_{name}" for name in _ACCOUNT_NAMES),
    *(f"deflate_{name}" for name in _ACCOUNT_NAMES),
    "hints",
    "hinted_bytes",
    "hints_stale",
    "statistics",
    "refaulted_bytes",
)
"""Name of each word, in the order in which they lie in memory."""

LEDGER_WORDS = len(WORD_NAMES)
"""Length of the array."""

SKIP_REASONS = {
    "unaligned": SKIPPED_UNALIGNED,
    "out_of_range": SKIPPED_OUT_OF_RANGE,
    "device_readable": SKIPPED_DEVICE_READABLE,
    "repeated": SKIPPED_REPEATED,
    "failed": SKIPPED_FAILED,
    "poisoned": SKIPPED_POISONED,
    "inhibited": SKIPPED_INHIBITED,
    "partial": SKIPPED_PARTIAL,
}
"""Why reported bytes were not discarded, and the word that counts them."""


class Ledger:
    """Names for the words of one guest's account.

    Attributes:
        words: int64 array of `LEDGER_WORDS`, for the kernels that write it.
    """

    words: npt.NDArray[np.int64]

    def __init__(self, words: npt.NDArray[np.int64] | None = None) -> None:
        """Use this array, as it stands, or a new one of zeros.

        Raises:
            ValueError: the array is not one of `LEDGER_WORDS` contiguous int64.
        """
        if words is None:
            words = np.zeros(LEDGER_WORDS, dtype=np.int64)
        if words.shape != (LEDGER_WORDS,) or words.dtype != np.int64 or not words.flags.c_contiguous:
            raise ValueError(f"a ledger is {LEDGER_WORDS} contiguous int64, not {words.dtype} of shape {words.shape}")
        self.words = words

    def snapshot(self) -> dict[str, int]:
        """Every word by its name."""
        return dict(zip(WORD_NAMES, self.words.tolist(), strict=True))

    def skipped_bytes(self) -> dict[str, int]:
        """Bytes that were reported and not discarded, by reason."""
        return {reason: int(self.words[word]) for reason, word in SKIP_REASONS.items()}
