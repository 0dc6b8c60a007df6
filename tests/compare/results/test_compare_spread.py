"""Medians, spreads, and when one of several may be called best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.compare.results.spread import Spread, best_of, spread_of

LOW, MIDDLE, HIGH = Spread(1, 0.9, 1.1, 3), Spread(2, 1.5, 2.5, 3), Spread(4, 3.5, 5, 3)


def test_a_spread_is_the_median_and_the_ends() -> None:
    """Three repeats give the middle one, the least and the largest."""
    assert spread_of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 3)


def test_what_was_not_measured_in_every_run_has_no_spread() -> None:
    """A median over some of the repeats would be of other streams than the others'."""
    assert spread_of([1.0, None]) is None
    assert spread_of([]) is None


@pytest.mark.parametrize(
    ("spreads", "better", "best"),
    [
        ([HIGH, LOW, MIDDLE], "low", 1),
        ([HIGH, LOW, MIDDLE], "high", 0),
        ([LOW, None, MIDDLE], "low", 0),
        ([LOW, LOW, MIDDLE], "low", None),
        ([Spread(1, 0.5, 1.6, 3), MIDDLE], "low", None),
        ([LOW], "low", None),
        ([LOW, MIDDLE], None, None),
        ([Spread(1, 1, 1, 1), Spread(2, 2, 2, 1)], "low", None),
        ([Spread(1, 1, 1, 2), Spread(2, 2, 2, 2)], "low", None),
    ],
)
def test_best_is_who_is_better_in_the_worst_repeat(spreads: list[Spread | None], better: str, best: int | None) -> None:
    """Overlapping spreads, ties, a single one and single runs leave nobody marked."""
    assert best_of(spreads, better) == best  # type: ignore[arg-type]


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=5), min_size=2, max_size=5))
def test_the_best_is_beaten_by_no_repeat_of_another(measured: list[list[float]]) -> None:
    """Whoever is marked has each of its values below each of the others'."""
    best = best_of([spread_of(values) for values in measured], "low")
    if best is not None:
        others = [value for index, values in enumerate(measured) if index != best for value in values]
        assert max(measured[best]) < min(others)
