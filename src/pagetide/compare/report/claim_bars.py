"""A claim's figures as a picture: a bar for each case, its spread, and a mark where what is asked of it begins."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from pagetide.compare.claims.bars import Bar, Bars
from pagetide.compare.claims.words import worded
from pagetide.compare.report.templating import html

_WIDTH = 300.0
_ROW_HEIGHT = 17.0
_BAR_HEIGHT = 9.0
_CHARACTER_WIDTH = 6.1
_MARK_WIDTH = 16.0
_GAP = 7.0
_BARS_WIDTH_MIN = 70.0
_ROOM = 1.03

MARKS = {True: "✓", False: "✗", None: "?"}
"""What stands after a figure that does what is asked of it, that does not, and of which the repeats do not agree."""


class _Drawn(NamedTuple):
    """A bar's places in the picture, from the left and from its row's top."""

    bar: Bar
    text: str
    length: float
    low: float
    high: float
    bound: float | None
    top: float


def draw_bars(every: Sequence[Bars], name: str) -> list[Markup]:
    """A claim's pictures, for HTML, with names and figures in line from one to the next.

    Args:
        every: what is drawn, a picture each.
        name: what the pictures' identifiers begin with: no two on a page may share it.
    """
    names_width = max(_width(bar.name) for bars in every for bar in bars.bars)
    texts_width = max(_width(worded(bar.spread.median, bars.kind)) for bars in every for bar in bars.bars)
    right = _WIDTH - _GAP - texts_width - _MARK_WIDTH
    left = min(names_width + _GAP, right - _BARS_WIDTH_MIN)
    return [_draw(bars, f"{name}-{index}", left, right - left) for index, bars in enumerate(every)]


def _width(text: str) -> float:
    return _CHARACTER_WIDTH * len(text)


def _draw(bars: Bars, name: str, left: float, width: float) -> Markup:
    return html(
        "claim_bars.html",
        name=name,
        title=described(bars),
        drawn=list(_drawn(bars, width)),
        left=left,
        width=width,
        gap=_GAP,
        size=(_WIDTH, _ROW_HEIGHT * len(bars.bars)),
        bar_height=_BAR_HEIGHT,
        row_height=_ROW_HEIGHT,
        marks=MARKS,
    )


def described(bars: Bars) -> str:
    """All that a picture shows, in words."""
    return f"{bars.label}: " + "; ".join(_told(one, bars) for one in bars.bars)


def _told(bar: Bar, bars: Bars) -> str:
    median, low, high = (worded(value, bars.kind) for value in (bar.spread.median, bar.spread.low, bar.spread.high))
    spread = f" (from {low} to {high})" if low != high else ""
    if bar.bound is None:
        return f"{bar.name} {median}{spread}"
    answer = {True: "which it is", False: "which it is not", None: "which is open"}[bar.bound.is_met]
    return f"{bar.name} {median}{spread}, asked to be {bar.bound.asked}, {answer}"


def _drawn(bars: Bars, width: float) -> Iterator[_Drawn]:
    ends = [max(bar.spread.high, bar.bound.at if bar.bound is not None else 0.0) for bar in bars.bars]
    scale = width / (_ROOM * max(*ends, 0.0) or 1.0)
    for index, bar in enumerate(bars.bars):
        median, low, high = (max(0.0, scale * value) for value in (bar.spread.median, bar.spread.low, bar.spread.high))
        bound = None if bar.bound is None else max(0.0, scale * bar.bound.at)
        text = worded(bar.spread.median, bars.kind)
        yield _Drawn(bar, text, median, low, high, bound, _ROW_HEIGHT * index)
