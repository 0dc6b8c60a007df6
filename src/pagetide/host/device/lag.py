"""How long reports waited for their acknowledgement: a histogram of times, in buckets an eighth of a doubling wide.

Beside it is counted how many waited no longer than each of a few round times, for who adds up or draws many guests'.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.device.figures import ROUND_US
from pagetide.jit import kernel

_SUB_SHIFT = 3
_SUBS = 1 << _SUB_SHIFT
_BUCKETS = 64 * _SUBS

_ROUND_NS = tuple(1000 * time_us for time_us in ROUND_US)
_ROUNDS = len(_ROUND_NS)

_COUNT, _SUM_NS, _MAX_NS, _FIRST_ROUND = 0, 1, 2, 3
_FIRST = _FIRST_ROUND + _ROUNDS

LAG_WORDS = _FIRST + _BUCKETS
"""Length of the array: how many times, their sum, the longest, and a count for each round time and each bucket."""

_Words = npt.NDArray[np.int64]


@kernel
def note_lag(words: _Words, lag_ns: int, count: int) -> None:
    """So many reports waited for this long.

    Below 8 ns each value has its own bucket; above, the three bits after the highest tell those of a doubling apart.
    """
    words[_COUNT] += count
    words[_SUM_NS] += count * lag_ns
    words[_MAX_NS] = max(words[_MAX_NS], lag_ns)
    for index in range(_ROUNDS):
        if lag_ns <= _ROUND_NS[index]:
            words[_FIRST_ROUND + index] += count
    shift = 0
    while lag_ns >> shift >= 2 * _SUBS:
        shift += 1
    words[_FIRST + min(shift * _SUBS + (lag_ns >> shift), _BUCKETS - 1)] += count


class Lag:
    """Times in nanoseconds.

    Attributes:
        words: where they are counted, for `note_lag`.
    """

    words: _Words

    def __init__(self) -> None:
        """Know of none."""
        self.words = np.zeros(LAG_WORDS, np.int64)

    @property
    def count(self) -> int:
        """How many."""
        return self.words.item(_COUNT)

    @property
    def sum_ns(self) -> int:
        """All of them together."""
        return self.words.item(_SUM_NS)

    @property
    def max_ns(self) -> int:
        """The longest."""
        return self.words.item(_MAX_NS)

    def note(self, lag_ns: int, count: int) -> None:
        """So many reports waited for this long."""
        assert lag_ns >= 0
        note_lag(self.words, lag_ns, count)

    def quantile_ns(self, share: float) -> int:
        """The time that this share of the reports did not exceed, at most an eighth too high; 0 if there are none."""
        assert 0 < share <= 1
        wanted = share * self.count
        seen = 0
        for bucket, count in enumerate(self.words[_FIRST:].tolist()):
            seen += count
            if count and seen >= wanted:
                return min(_last_of(bucket), self.max_ns)
        return 0

    def within(self) -> list[int]:
        """How many waited no longer than each of `ROUND_US`, which is exact."""
        found: list[int] = self.words[_FIRST_ROUND:_FIRST].tolist()
        return found


def _last_of(bucket: int) -> int:
    """The longest time in a bucket."""
    if bucket < 2 * _SUBS:
        return bucket
    shift = bucket // _SUBS - 1
    return ((bucket - shift * _SUBS + 1) << shift) - 1
