"""One measured figure."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """A figure, and what it should be.

    Attributes:
        name: what was measured.
        value: the figure; None where it cannot be had here, and `note` says why.
        unit: of the figure.
        at_most: what it must not exceed, if anything.
        at_least: what it must reach, if anything.
        note: a word of explanation.
    """

    name: str
    value: float | None
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def figure(self) -> str:
        """The figure with its unit, in four digits or more."""
        if self.value is None:
            return "–"  # noqa: RUF001 - no figure
        digits = f"{self.value:.0f}" if abs(self.value) >= 1000 else f"{self.value:.4g}"
        return f"{digits} {self.unit}"

    @property
    def target(self) -> str:
        """What the figure should be, in words."""
        if self.at_most is not None and self.at_least is not None:
            return f"from {self.at_least:g} to {self.at_most:g}"
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else ""

    @property
    def ok(self) -> bool | None:
        """Whether the figure is what it should be; None if nothing is asked of it, or it could not be had."""
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Between which two half of the values are, and in the middle the median."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return float(low), float(middle), float(high)
