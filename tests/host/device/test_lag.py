"""The histogram of lags."""

import hypothesis.strategies as st
from hypothesis import given

from pagetide.host.device.figures import ROUND_US
from pagetide.host.device.lag import Lag


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 5)), min_size=1, max_size=50),
    st.sampled_from([0.01, 0.5, 0.99, 1.0]),
)
def test_a_quantile_is_never_too_low_and_an_eighth_too_high_at_most(lags: list[tuple[int, int]], share: float) -> None:
    """Against the exact quantile of the same times."""
    lag = Lag()
    for lag_ns, count in lags:
        lag.note(lag_ns, count)
    times = sorted(lag_ns for lag_ns, count in lags for _ in range(count))
    exact = next(time for rank, time in enumerate(times, 1) if rank >= share * len(times))
    assert exact <= lag.quantile_ns(share) <= exact + exact / 8
    assert (lag.count, lag.max_ns, lag.quantile_ns(1.0)) == (len(times), times[-1], times[-1])


@given(st.lists(st.tuples(st.integers(0, 10**11), st.integers(1, 5)), max_size=30))
def test_round_times_count_exactly(lags: list[tuple[int, int]]) -> None:
    """A report that waited for just a round time is within it; the sum has all."""
    lag = Lag()
    times = [(1000 * time_us + more_ns, 1) for time_us in ROUND_US for more_ns in (0, 1)]
    for lag_ns, count in [*lags, *times]:
        lag.note(lag_ns, count)
    for time_us, within in zip(ROUND_US, lag.within(), strict=True):
        assert within == sum(count for lag_ns, count in [*lags, *times] if lag_ns <= 1000 * time_us)
    assert lag.sum_ns == sum(lag_ns * count for lag_ns, count in [*lags, *times])


def test_nothing_has_no_lag() -> None:
    """Without reports everything is 0."""
    assert Lag().quantile_ns(0.5) == Lag().max_ns == Lag().count == 0
