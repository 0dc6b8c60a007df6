"""From samples to figures: what counts as returned, verified, and back."""

import numpy as np
import pytest

from pagetide.machine.measure import Series, Span, Waiting, bursts, footprint
from pagetide.machine.observer import SAMPLE_INTERVAL_S

pytestmark = pytest.mark.jit  # no kernel is called

GIB = 1 << 30


def about(value: float) -> object:
    """This many seconds: samples tell a moment to within their interval."""
    return pytest.approx(value, abs=SAMPLE_INTERVAL_S)


def series(*points: tuple[float, float, float], used: tuple[float, ...] = ()) -> Series:
    """Samples of (seconds, resident GiB, verified GiB), and used GiB."""
    t_s, resident, verified = np.array(points).T
    columns = (resident, verified, np.array(used or [0] * len(t_s)))
    return Series(t_s, *((column * GIB).astype(np.int64) for column in columns))


def test_the_lag_runs_from_the_last_free_to_the_first_sample_near_the_floor() -> None:
    """Within 5 % of what was eaten of the run's floor counts as back; a sample just above does not."""
    seen = series((0, 0, 0), (1, 1.5, 0), (2, 1.5, 0), (3, 0.06, 0.5), (3.5, 0.049, 1), (4, 0, 1.5))
    (burst,) = bursts([Span(0, 1.5, 2, GIB)], seen)
    assert burst.return_lag_s == about(1.5)
    assert burst.returned_bytes == int(1.5 * GIB)
    assert burst.verified_bytes == int(1.5 * GIB)
    assert burst.eaten_bytes == GIB


def test_a_burst_that_ate_little_is_not_back_at_once() -> None:
    """What may be left is a share of what it ate, however large the guest is."""
    seen = series((0, 0, 0), (1, 0.01, 0), (2, 0.01, 0), (3, 0.0006, 0), (4, 0.0004, 0), used=(0, 0.01, 0, 0, 0))
    (burst,) = bursts([Span(0, 1, 1.5, GIB // 100)], seen)
    assert burst.return_lag_s == about(2.5)


def test_between_two_samples_residency_falls_steadily() -> None:
    """A lag is told more finely than samples are apart: the floor's neighbourhood is reached on the way."""
    seen = series((0, 0, 0), (1, 1, 0), (1.02, 1, 0), (1.04, 0.12, 1), (1.06, 0, 1), used=(0, 1, 0, 0, 0))
    (burst,) = bursts([Span(0, 1, 1.01, GIB)], seen)
    assert burst.return_lag_s == pytest.approx(1.04 + 0.02 * (0.12 - 0.05) / 0.12 - 1.01)
    # Freed steadily from 1.00 to 1.02 s; 0.88 of it back by 1.04 s, and the rest by 1.06 s.
    assert footprint(seen).return_lag_s_p50 == pytest.approx(0.02 + 0.02 * (0.5 / 0.88 - 0.5), abs=1e-5)
    assert footprint(seen).return_lag_s_max == pytest.approx(0.04, abs=2e-4)


def test_a_fall_after_a_long_pause_happened_at_its_end() -> None:
    """Where nobody looked for long, nothing happened until shortly before somebody did."""
    seen = series((0, 0, 0), (1, 1, 0), (2, 1, 0), (9, 0, 1))
    (burst,) = bursts([Span(0, 1, 2, GIB)], seen)
    assert burst.return_lag_s == pytest.approx(7 - SAMPLE_INTERVAL_S * 0.05)


def test_memory_that_never_comes_back_has_no_lag() -> None:
    """A burst whose memory stays resident says so with None, not with a large number."""
    seen = series((0, 0, 0), (1, 1.5, 0), (2, 1.5, 0), (9, 0.8, 0.7))
    (burst,) = bursts([Span(0, 1.5, 2, GIB)], seen)
    assert burst.return_lag_s is None
    assert burst.returned_bytes == int(1.5 * GIB) - int(0.8 * GIB)


def test_each_burst_lasts_until_the_next_begins() -> None:
    """What happens in the second burst counts for the second alone."""
    seen = series((0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 0.9, 1), (4, 0.9, 1), (5, 0, 1.9))
    first, second = bursts([Span(0, 1, 1.5, GIB), Span(2.5, 4, 4.5, GIB)], seen)
    assert (first.returned_bytes, first.return_lag_s, first.verified_bytes) == (GIB, about(0.5), GIB)
    assert (second.returned_bytes, second.return_lag_s) == (int(0.9 * GIB), about(0.5))
    assert second.verified_bytes == int(1.9 * GIB) - GIB


def test_a_lag_is_never_found_before_the_free() -> None:
    """Residency that was near the floor before anything was eaten does not count as back."""
    seen = series((0, 0, 0), (1, 1.5, 0), (2, 1.5, 0), (3, 1.5, 0))
    (burst,) = bursts([Span(0, 1.5, 2, GIB)], seen)
    assert burst.return_lag_s is None


def test_what_the_guest_uses_beside_the_burst_is_not_waited_for() -> None:
    """A server that grew since the floor may keep what it uses; what is beyond that is not back."""
    points = (0, 0.1, 0), (1, 1.5, 0), (2, 1.5, 0), (3, 0.45, 1), (4, 0.31, 1.2)
    (burst,) = bursts([Span(0.5, 1.5, 2, GIB)], series(*points, used=(0.1, 1.3, 0.3, 0.3, 0.3)))
    assert burst.return_lag_s == about(2.0)
    (burst,) = bursts([Span(0.5, 1.5, 2, GIB)], series(*points, used=(0.1, 1.1, 0.1, 0.1, 0.1)))
    assert burst.return_lag_s is None


def test_a_small_guest_has_its_last_block_forgiven() -> None:
    """46 of 48 MiB are back, though 2 MiB are more than 2 % of a guest of 64 MiB."""
    mib = 1 / 1024
    seen = series((0, 0, 0), (1, 48 * mib, 0), (2, 48 * mib, 0), (3, 2 * mib, 0), used=(0, 48 * mib, 0, 0))
    (burst,) = bursts([Span(0, 1, 2, 48 << 20)], seen)
    assert (burst.returned_bytes, burst.return_lag_s) == (46 << 20, about(1.0))


def test_what_stays_by_design_is_not_waited_for() -> None:
    """The lag is until all but that was back; otherwise, or with half of the burst, it never was."""
    seen = series((0, 0, 0), (1, 1, 0), (2, 1, 0), (3, 0.5, 0), (4, 0.2, 0), (5, 0.2, 0), used=(0, 1, 0, 0, 0, 0))
    (burst,) = bursts([Span(0, 1, 2, GIB)], seen, int(0.3 * GIB))
    assert burst.return_lag_s == about(2.0)
    assert burst.returned_bytes == GIB - int(0.2 * GIB)
    assert bursts([Span(0, 1, 2, GIB)], seen, int(0.1 * GIB))[0].return_lag_s is None
    little = series((0, 0, 0), (1, 1, 0), (2, 1, 0), (3, 0.6, 0), used=(0, 1, 0, 0))
    assert bursts([Span(0, 1, 2, GIB)], little, GIB)[0].return_lag_s is None


def test_nothing_sampled_gives_no_bursts() -> None:
    """A run that broke off before its first sample, or before its first burst was over, has none."""
    empty = Series(np.zeros(0), *[np.zeros(0, np.int64)] * 3)
    assert bursts([Span(0, 1, 2, GIB)], empty) == []
    assert bursts([], series((0, 0, 0), (1, 1, 0))) == []


def test_the_footprint_is_averaged_over_time() -> None:
    """A sample stands until the next one; what was kept for nothing, by what came back, is the mean lag."""
    seen = series((0, 1, 0), (1, 2, 0), (4, 2, 0), (5, 1, 0), (6, 1, 0), used=(1, 2, 1, 1, 1))
    found = footprint(seen)
    # held 1, 2, 2, 2, 1 GiB for each second; used 1, 2, 2, 2, 1, 1: from 4 s to 5 s one GiB was kept, and came back.
    assert found.mean_resident_bytes == round((1 + 6 + 2 + 1) / 6 * GIB)
    assert found.mean_used_bytes == round((1 + 6 + 1 + 1) / 6 * GIB)
    assert found.return_lag_s_mean == 1.0


def test_a_footprint_needs_time_and_a_lag_needs_a_return() -> None:
    """One sample gives no averages, and residency that never fell no lag."""
    assert footprint(series((0, 1, 0))) == (None,) * 7
    assert footprint(series((0, 1, 0), (1, 1, 0))).return_lag_s_mean is None


def test_the_lag_is_told_byte_by_byte() -> None:
    """Three quarters of what was freed at 1 s is back at 2 s and the rest at 11 s; what is used again has no lag."""
    seen = series((0, 4, 0), (1, 4, 0), (2, 1, 3), (11, 0, 4), used=(4, 0, 0, 0))
    kept = footprint(seen)
    assert (kept.return_lag_s_p50, kept.return_lag_s_p99, kept.return_lag_s_max) == (about(1), about(10), about(10))
    assert kept.unreturned_bytes == 0
    reused = footprint(series((0, 4, 0), (1, 4, 0), (2, 4, 0), (3, 4, 0), (4, 3, 1), used=(4, 2, 3, 3, 3)))
    assert (reused.return_lag_s_p50, reused.return_lag_s_max) == (about(3), about(3))


def test_what_is_freed_while_other_memory_returns_has_a_lag_too() -> None:
    """A host that returns each quarter two samples after it was freed has that lag, though it never keeps more."""
    points = [(0.02 * index, 1 - 0.25 * min(max(index - 3, 0), 4), 0) for index in range(10)]
    used = tuple(1 - 0.25 * min(max(index - 1, 0), 4) for index in range(10))
    found = footprint(series(*points, used=used))
    assert (found.return_lag_s_p50, found.return_lag_s_max) == pytest.approx((0.04, 0.04))


def test_what_never_comes_back_counts_with_its_age_at_the_end() -> None:
    """A design that forgets most of what was freed is not praised for how soon the little else came back."""
    seen = series((0, 4, 0), (1, 4, 0), (2, 3, 1), (61, 3, 1), used=(4, 0, 0, 0))
    kept = footprint(seen)
    assert (kept.return_lag_s_p50, kept.return_lag_s_max) == (about(60), about(60))
    assert kept.unreturned_bytes == 3 * GIB


def test_what_waits_is_as_old_as_its_oldest_byte() -> None:
    """It ages while nothing is returned, the oldest goes first, and what may stay for good is not minded."""
    waiting = Waiting(10)
    assert waiting.seen(0.0, 100, 100) == 0
    assert waiting.seen(1.0, 50, 100) == 0  # has just been freed
    assert waiting.seen(3.0, 20, 100) == 2
    assert waiting.seen(4.0, 20, 60) == 1  # 50 went, or rather 40 of them: of the rest the second free is minded
    assert waiting.seen(5.0, 20, 30) == 0  # 10 are left
    assert waiting.seen(9.0, 20, 30) == 0
    assert waiting.seen(10.0, 30, 30) == 0  # used again


def test_what_comes_and_goes_at_once_makes_nothing_older() -> None:
    """As much freed as returned between two samples: the old is gone, and what is there is new."""
    waiting = Waiting(0)
    waiting.seen(0.0, 100, 100)
    assert waiting.seen(1.0, 60, 100) == 0
    assert waiting.seen(2.0, 20, 60) == 0
    assert waiting.seen(3.0, 20, 60) == 1
