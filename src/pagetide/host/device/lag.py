"""How long reports waited for their acknowledgement: a histogram of times, in buckets an eighth of a doubling wide.

Beside it is counted how many waited no longer than each of a few round times, for who adds up or draws many guests'.
"""

import bisect
import itertools

_SUB_SHIFT = 3
_SUBS = 1 << _SUB_SHIFT

ROUND_US = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000)
"""The round times, in microseconds."""

_ROUND_NS = tuple(1000 * time_us for time_us in ROUND_US)


class Lag:
    """Times in nanoseconds.

    Attributes:
        count: how many.
        sum_ns: all of them together.
        max_ns: the longest.
    """

    count: int
    sum_ns: int
    max_ns: int

    def __init__(self) -> None:
        self.count = self.sum_ns = self.max_ns = 0
        self._counts: dict[int, int] = {}
        self._round_counts = [0] * (len(_ROUND_NS) + 1)

    def note(self, lag_ns: int, count: int) -> None:
        """So many reports waited for this long."""
        assert lag_ns >= 0
        self.count += count
        self.sum_ns += count * lag_ns
        self.max_ns = max(self.max_ns, lag_ns)
        bucket = _bucket(lag_ns)
        self._counts[bucket] = self._counts.get(bucket, 0) + count
        self._round_counts[bisect.bisect_left(_ROUND_NS, lag_ns)] += count

    def quantile_ns(self, share: float) -> int:
        """The time that this share of the reports did not exceed, at most an eighth too high; 0 if there are none."""
        assert 0 < share <= 1
        wanted = share * self.count
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(_last_of(bucket), self.max_ns)
        return 0

    def within(self) -> list[int]:
        """How many waited no longer than each of `ROUND_US`, which is exact."""
        return list(itertools.accumulate(self._round_counts[:-1]))


def _bucket(lag_ns: int) -> int:
    """Below 8 ns each value has its own; above, the three bits after the highest tell buckets of a doubling apart."""
    shift = max(0, lag_ns.bit_length() - _SUB_SHIFT - 1)
    return shift * _SUBS + (lag_ns >> shift)


def _last_of(bucket: int) -> int:
    """The longest time in a bucket."""
    if bucket < 2 * _SUBS:
        return bucket
    shift = bucket // _SUBS - 1
    return ((bucket - shift * _SUBS + 1) << shift) - 1
