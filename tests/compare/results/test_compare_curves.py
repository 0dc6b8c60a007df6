"""Curves that are drawn with fewer points show all that was reached."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.compare.results.curves import thinned


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=400), st.integers(1, 20))
def test_extremes_and_ends_are_kept(steps: list[int], points: int) -> None:
    """However few points are drawn, the least, the largest, the first and the last value are among them, in order."""
    values = np.array(steps, np.float64)
    t_s = np.arange(len(steps)) / 7
    kept = thinned(t_s, [values, -values], points)
    assert list(kept) == sorted(set(kept.tolist()))
    if len(steps):
        assert {kept[0], kept[-1]} == {0, len(steps) - 1}
        assert values[kept].min() == values.min()
        assert values[kept].max() == values.max()
    if len(steps) > 2 * points:
        assert len(kept) <= 6 * points + 2


def test_a_flat_stretch_is_two_points() -> None:
    """Where nothing changes nothing is drawn between the ends."""
    values = np.array([1.0, 1, 1, 1, 5, 5, 5, 5])
    assert thinned(np.arange(8.0), [values], 100).tolist() == [0, 3, 4, 7]
