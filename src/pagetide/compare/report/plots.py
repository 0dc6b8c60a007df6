"""Pictures of the report: matplotlib draws them, and they take their colours from the page, light or dark."""

import functools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.compare.report.labels import Box, placed
from pagetide.compare.report.tradeoff import Point, Tradeoff, frontier
from pagetide.compare.results.curves import thinned
from pagetide.compare.results.spread import Spread
from pagetide.pages.drawing import CURVE, GUEST, LINE, axes_of, drawing, few_ticks, new_axes, svg_of
from pagetide.pages.palette import LOOKS, variable
from pagetide.units import GIB

_POINTS = 50
_PANEL_INCHES = (2.6, 1.5)
_PANEL_MARGINS_INCHES = (0.36, 0.26, 0.08, 0.16)
_TRADEOFF_INCHES = (4.1, 2.9)
_TRADEOFF_MARGINS_INCHES = (0.5, 0.4, 0.1, 0.08)
_ORDERS_INCHES = (2.6, 1.8)
_ORDERS_MARGINS_INCHES = (0.4, 0.36, 0.08, 0.24)
_LABEL_POINTS = 8.0


class Curve(NamedTuple):
    """What one run shows over time: seconds, and bytes that the guest used and the host held."""

    t_s: npt.NDArray[np.float64]
    guest_used_bytes: npt.NDArray[np.float64]
    host_resident_bytes: npt.NDArray[np.float64]


def draw_panel(curve: Curve, design: str, end_s: float, top_bytes: float, name: str, description: str) -> str:
    """A design's curve: the guest's use as an area, the host's residency as a line.

    Args:
        curve: what is drawn.
        design: whose colour the line has.
        end_s: the right edge.
        top_bytes: the top edge.
        name: what the picture's identifiers begin with: no two on a page may share it.
        description: for who cannot see it.

    Returns:
        An SVG element, for HTML.
    """
    kept = thinned(curve.t_s, [curve.guest_used_bytes, curve.host_resident_bytes], _POINTS)
    t_s = curve.t_s[kept]
    with drawing():
        figure, axes = _panel_axes()
        used = axes.fill_between(t_s, 0, curve.guest_used_bytes[kept] / GIB, color=GUEST, linewidth=0)
        (held,) = axes.plot(t_s, curve.host_resident_bytes[kept] / GIB, color=CURVE, linewidth=1.4)
        axes.set_xlim(0, end_s)
        axes.set_ylim(0, top_bytes * 1.04 / GIB)
        drawn = svg_of(figure, name, description, {CURVE: variable(design)})
        used.remove()
        held.remove()
        return drawn


@functools.cache
def _panel_axes() -> tuple[Any, Any]:
    """What all panels have in common, made once: axes with their ticks take longer to make than a curve to draw."""
    figure, axes = new_axes(_PANEL_INCHES, _PANEL_MARGINS_INCHES)
    axes.xaxis.set_major_locator(few_ticks(4))
    axes.yaxis.set_major_locator(few_ticks(3))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda t_s, _: f"{t_s:g} s" if t_s else "0")
    axes.set_ylabel("GiB", rotation=0, loc="top", labelpad=-6)
    return figure, axes


def draw_tradeoff(tradeoff: Tradeoff, name: str, description: str) -> str:
    """Every configuration as a point with its spread and label, and the frontier; arguments as for `draw_panel`."""
    colours = {design: f"#0a0a{number:02x}" for number, design in enumerate(LOOKS)}
    with axes_of(_TRADEOFF_INCHES, _TRADEOFF_MARGINS_INCHES) as (figure, axes):
        best = frontier(tradeoff.points)
        steps = [(point.cost.median, point.footprint.median) for point in best]
        axes.plot(
            *zip(*steps, strict=True), color=LINE, linewidth=1, linestyle=(0, (4, 3)), drawstyle="steps-post", zorder=1
        )
        for point in tradeoff.points:
            _draw_point(axes, point, colours[point.design], 8 if point in best else 6)
        axes.set_xlabel(tradeoff.cost_label)
        axes.set_ylabel(tradeoff.footprint_label)
        most = max(point.cost.high for point in tradeoff.points) or 1.0
        axes.set_xlim(-0.04 * most, 1.06 * most)
        axes.set_ylim(0, 1.12 * max(point.footprint.high for point in tradeoff.points) or 1.0)
        axes.grid()
        axes.set_axisbelow(True)
        _draw_labels(axes, tradeoff.points, colours)
        return svg_of(figure, name, description, {colours[design]: variable(design) for design in colours})


def _draw_point(axes: Any, point: Point, colour: str, size: float) -> None:
    cost, held = point.cost, point.footprint
    axes.plot([cost.low, cost.high], [held.median] * 2, color=colour, linewidth=0.9, zorder=2)
    axes.plot([cost.median] * 2, [held.low, held.high], color=colour, linewidth=0.9, zorder=2)
    mark = LOOKS[point.design].mark
    axes.plot(cost.median, held.median, mark, color=colour, markersize=size, markeredgewidth=0, zorder=3, clip_on=False)


def _draw_labels(axes: Any, points: Sequence[Point], colours: dict[str, str]) -> None:
    """Each beside its point, with a line to it from where there was room."""
    per_inch = 72.0 / axes.figure.dpi

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y)) * per_inch
        return float(across), float(up)

    covered = [_around(*place(x, low), *place(x, high)) for x, low, high in _uprights(points)]
    covered += [_around(*place(low, y), *place(high, y)) for y, low, high in _levels(points)]
    at = [place(one.cost.median, one.footprint.median) for one in points]
    inside = Box(*(axes.get_window_extent().extents * per_inch))
    back = axes.transData.inverted()
    labels = placed(at, [one.label for one in points], inside, _LABEL_POINTS, covered)
    for (x, y), point, label in zip(at, points, labels, strict=True):
        left, bottom, right, top = label.box
        middle = back.transform(((left + right) / 2 / per_inch, (bottom + top) / 2 / per_inch))
        if label.has_leader:
            end = back.transform((min(max(x, left), right) / per_inch, min(max(y, bottom), top) / per_inch))
            along, up = [point.cost.median, end[0]], [point.footprint.median, end[1]]
            axes.plot(along, up, color=colours[point.design], linewidth=0.6, zorder=1.5)
        axes.text(*middle, point.label, fontsize=_LABEL_POINTS, ha="center", va="center_baseline", zorder=4)


def _uprights(points: Sequence[Point]) -> Iterator[tuple[float, float, float]]:
    """The lines up that are drawn: spreads, and the frontier's."""
    for point in points:
        yield point.cost.median, point.footprint.low, point.footprint.high
    for first, second in pairwise(frontier(points)):
        yield second.cost.median, second.footprint.median, first.footprint.median


def _levels(points: Sequence[Point]) -> Iterator[tuple[float, float, float]]:
    """Those across."""
    for point in points:
        yield point.footprint.median, point.cost.low, point.cost.high
    for first, second in pairwise(frontier(points)):
        yield first.footprint.median, first.cost.median, second.cost.median


def _around(left: float, bottom: float, right: float, top: float) -> Box:
    return Box(left - 1, bottom - 1, right + 1, top + 1)


def draw_orders(
    spreads: Sequence[tuple[int, Spread]], label: str, design: str, end: int, name: str, description: str
) -> str:
    """A measure against the reporting order: medians joined by a line, and each one's spread.

    Args:
        spreads: (order, measure), by order.
        label: of the axis up, with its unit.
        design: whose colour the line has.
        end: the largest order on the axis.
        name: as for `draw_panel`, as is the result.
        description: likewise.
    """
    with axes_of(_ORDERS_INCHES, _ORDERS_MARGINS_INCHES) as (figure, axes):
        orders = [order for order, _ in spreads]
        axes.plot(orders, [spread.median for _, spread in spreads], "o-", color=CURVE, linewidth=1.4, markersize=4)
        for order, spread in spreads:
            axes.plot([order] * 2, [spread.low, spread.high], color=CURVE, linewidth=0.9)
        axes.set_xlim(-0.4, end + 0.4)
        axes.set_ylim(0, 1.1 * max(spread.high for _, spread in spreads) or 1.0)
        axes.set_xticks(range(end + 1))
        axes.yaxis.set_major_locator(few_ticks(4))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel("order")
        axes.set_title(label, loc="left", fontsize=8)
        return svg_of(figure, name, description, {CURVE: variable(design)})
