"""How long reports waited for their acknowledgement: a histogram of times, in buckets an eighth of a doubling wide."""

_SUB_SHIFT = 3
_SUBS = 1 << _SUB_SHIFT
_BUCKETS = 64 * _SUBS


class Lag:
    """Times in nanoseconds.

    Attributes:
        count: how many.
        max_ns: the longest.
    """

    count: int
    max_ns: int

    def __init__(self) -> None:
        self.count = self.max_ns = 0
        self._counts = [0] * _BUCKETS

    def note(self, lag_ns: int, count: int) -> None:
        """So many reports waited for this long."""
        assert lag_ns >= 0
        self.count += count
        self.max_ns = max(self.max_ns, lag_ns)
        self._counts[_bucket(lag_ns)] += count

    def quantile_ns(self, share: float) -> int:
        """The time that this share of the reports did not exceed, at most an eighth too high; 0 if there are none."""
        assert 0 < share <= 1
        wanted = share * self.count
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(_last_of(bucket), self.max_ns)
        return 0


def _bucket(lag_ns: int) -> int:
    """Below 8 ns each value has its own; above, the three bits after the highest tell buckets of a doubling apart."""
    shift = max(0, lag_ns.bit_length() - _SUB_SHIFT - 1)
    return min(shift * _SUBS + (lag_ns >> shift), _BUCKETS - 1)


def _last_of(bucket: int) -> int:
    """The longest time in a bucket."""
    if bucket < 2 * _SUBS:
        return bucket
    shift = bucket // _SUBS - 1
    return ((bucket - shift * _SUBS + 1) << shift) - 1
