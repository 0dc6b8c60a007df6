"""The figures that a claim's verdict rests on, as they are drawn: a bar for each case, and what is asked of it."""

from typing import NamedTuple

from pagetide.compare.claims.words import Kind, worded
from pagetide.compare.results.spread import Spread


class Bound(NamedTuple):
    """What a claim asks of a figure.

    Attributes:
        asked: that in words, as `at most 1 %`.
        at: the bound itself; where it follows another case's figure, it is made of that one's median.
        is_most: whether the figure is to stay below it, and not to reach it.
        is_met: whether it does in every repeat, or in none; None if in some.
    """

    asked: str
    at: float
    is_most: bool
    is_met: bool | None


class Bar(NamedTuple):
    """A figure of one case.

    Attributes:
        name: of the case.
        design: that ran it.
        spread: the figure over the repeats.
        bound: what is asked of it; None if it stands there to be compared with.
    """

    name: str
    design: str
    spread: Spread
    bound: Bound | None = None


class Bars(NamedTuple):
    """Bars beside each other, of one figure.

    Attributes:
        label: what is measured, in a few words.
        kind: what that is of.
        bars: one a case.
        one_is_enough: whether it is enough that one bar does what is asked of it; otherwise all have to.
    """

    label: str
    kind: Kind
    bars: tuple[Bar, ...]
    one_is_enough: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the bars do what is asked of them; None if the repeats do not agree, or nothing is asked."""
        answers = [bar.bound.is_met for bar in self.bars if bar.bound is not None]
        if self.one_is_enough in answers:
            return self.one_is_enough
        return None if None in answers or not answers else not self.one_is_enough


def at_most(one: Spread, limit: float, kind: Kind) -> Bound:
    """It stays within a limit."""
    is_met = True if one.high <= limit else False if one.low > limit else None
    return Bound(f"at most {worded(limit, kind)}", limit, True, is_met)


def at_least(one: Spread, limit: float, kind: Kind) -> Bound:
    """It reaches a limit."""
    is_met = True if one.low >= limit else False if one.high < limit else None
    return Bound(f"at least {worded(limit, kind)}", limit, False, is_met)
