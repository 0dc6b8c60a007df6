"""The report's pictures: memory over time, density against risk, and hosts as a heat map."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.report.told import design_of
from pagetide.fleet.runs.summary import SettingSummary
from pagetide.fleet.usage.canonical import Grid
from pagetide.pages.drawing import CURVE, FAINT, GUEST, axes_of, few_ticks, svg_of
from pagetide.pages.palette import LOOKS, OTHER, variable
from pagetide.units import GIB

_INCHES = (2.6, 1.6)
_MARGINS_INCHES = (0.4, 0.3, 0.2, 0.18)
_POINTS = 120
_LINEAR_H = 0.1
"""Below so many hours of pressure the axis is linear, so that none at all has a place."""

LEVELS = (0.5, 0.7, 0.85, 0.95, 1.0)
"""Where the heat map's colours change, as shares of a host's room; the last is for more than there is."""

_Column = npt.NDArray[np.float64]


def draw_held(used: _Column, held: _Column, grid: Grid, setting: str, top_bytes: float, name: str) -> str:
    """What is held under a setting as a line, over what is used as an area; the highest of each part of the time.

    Args:
        used: float64 [step], bytes.
        held: likewise.
        grid: the steps.
        setting: whose colour the line has.
        top_bytes: the top edge.
        name: what the picture's identifiers begin with: no two on a page may share it.
    """
    begins = np.arange(0, grid.steps, max(1, grid.steps // _POINTS))
    days = begins * grid.step_s / 86400
    with axes_of(_INCHES, _MARGINS_INCHES) as (figure, axes):
        axes.fill_between(days, 0, np.maximum.reduceat(used, begins) / GIB, color=GUEST, linewidth=0)
        axes.plot(days, np.maximum.reduceat(held, begins) / GIB, color=CURVE, linewidth=1.4)
        axes.set_xlim(0, grid.days)
        axes.set_ylim(0, top_bytes * 1.04 / GIB or 1)
        axes.xaxis.set_major_locator(few_ticks(4))
        axes.yaxis.set_major_locator(few_ticks(3))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(lambda day, _: f"day {day:g}")
        axes.set_ylabel("GiB", rotation=0, loc="top", labelpad=-6)
        return svg_of(figure, name, f"{setting}: memory used and held over time", {CURVE: _colour(setting)})


def draw_density(settings: Sequence[SettingSummary], number: int, risk_h: float, name: str) -> str:
    """VMs a host against hours of pressure, a point a plan: one setting's in its colour, the others' behind it."""
    one = settings[number]
    described = "; ".join(f"{p.plan}: {p.vms_a_host.value:.3g} VMs, {p.pressed_h.value:.3g} h" for p in one.plans)
    with axes_of(_INCHES, _MARGINS_INCHES) as (figure, axes):
        axes.set_xscale("symlog", linthresh=_LINEAR_H, linscale=0.6)
        for other in settings:
            axes.plot(*_points(other), color=FAINT, linewidth=1)
        axes.axvline(risk_h, color=FAINT, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.plot(*_points(one), "o-", color=CURVE, linewidth=1.4, markersize=3.5, clip_on=False)
        axes.set_xlim(0, 720)
        axes.set_xticks([0, 0.1, 1, 10, 100], ["0", ".1", "1", "10", "100 h"])
        axes.minorticks_off()
        axes.set_ylim(0, 1.05 * max(plan.vms_a_host.value for other in settings for plan in other.plans) or 1)
        axes.yaxis.set_major_locator(few_ticks(4))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_ylabel("VMs a host", rotation=0, loc="top", labelpad=-30)
        return svg_of(figure, name, f"{one.name}. {described}", {CURVE: _colour(one.name)})


def _points(one: SettingSummary) -> tuple[list[float], list[float]]:
    by_risk = sorted((plan.pressed_h.value, plan.vms_a_host.value) for plan in one.plans)
    return [hours for hours, _ in by_risk], [vms for _, vms in by_risk]


def _colour(setting: str) -> str:
    design = design_of(setting)
    return variable(design) if design in LOOKS else OTHER.light


class Heat(NamedTuple):
    """A heat map to be drawn: a path for each level, in units of one span and one host.

    Attributes:
        hosts: how many rows.
        spans: how many columns.
        paths: of each level, as SVG has it; the last is of hosts that want more than they have.
    """

    hosts: int
    spans: int
    paths: tuple[str, ...]


def heat(shares: npt.NDArray[np.float32]) -> Heat:
    """The map of hosts that were so full, float32 [host, span]: neighbours of one level are one piece."""
    levels = np.searchsorted(LEVELS, shares)
    paths = [""] * (len(LEVELS) + 1)
    for host, row in enumerate(levels):
        begins = np.flatnonzero(np.diff(row, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(row)], strict=True):
            paths[row[begin]] += f"M{begin} {host}h{end - begin}v1h{begin - end}z"
    return Heat(len(levels), levels.shape[1], tuple(paths))
