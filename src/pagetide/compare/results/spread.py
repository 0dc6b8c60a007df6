"""Medians with their spread over repeats, and which of several is best beyond that spread."""

import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

REPEATS_MIN = 3
"""Fewer runs than these decide nothing: one has no spread, and two do not tell a spread from an outlier."""


class Spread(NamedTuple):
    """A measure over the repeats of one configuration: median, least and largest, and of how many runs."""

    median: float
    low: float
    high: float
    runs: int


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """The spread of what was measured; None if nothing was in some of the runs, or there are none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(statistics.median(known), min(known), max(known), len(known))


def best_of(spreads: Sequence[Spread | None], better: Literal["low", "high"] | None) -> int | None:
    """Which one is best for certain: its worst repeat is better than every other's best; None if there is no such.

    Fewer than REPEATS_MIN runs have no spread that could allow it, and one alone is not better than any other.
    """
    known = [(index, spread) for index, spread in enumerate(spreads) if spread is not None]
    if better is None or len(known) < 2 or any(spread.runs < REPEATS_MIN for _, spread in known):
        return None
    if better == "low":
        index, best = min(known, key=lambda one: one[1].high)
        beaten = all(best.high < other.low for place, other in known if place != index)
    else:
        index, best = max(known, key=lambda one: one[1].low)
        beaten = all(best.low > other.high for place, other in known if place != index)
    return index if beaten else None
