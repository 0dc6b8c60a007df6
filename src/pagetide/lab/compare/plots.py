"""Pictures of the report: matplotlib draws them, and they take their colours from the page, light or dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from pagetide.lab.compare.curves import thinned
from pagetide.lab.compare.palette import LOOKS, variable
from pagetide.lab.compare.tradeoff import Tradeoff, frontier

_POINTS = 90
_GIB = 1 << 30
_INK, _FAINT, _GUEST, _CURVE, _LINE = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--faint)", _GUEST: "var(--guest)", _LINE: "var(--ink-soft)"}
_PANEL_INCHES = (2.6, 1.55)
_MARGINS_INCHES = (0.42, 0.38, 0.12, 0.14)
_TRADEOFF_INCHES = (4.6, 3.3)

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "path.simplify": True,
    "text.parse_math": False,
}


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
    with _axes(_PANEL_INCHES) as (figure, axes):
        axes.fill_between(t_s, 0, curve.guest_used_bytes[kept] / _GIB, color=_GUEST, linewidth=0)
        axes.plot(t_s, curve.host_resident_bytes[kept] / _GIB, color=_CURVE, linewidth=1.4)
        axes.set_xlim(0, end_s)
        axes.set_ylim(0, top_bytes * 1.04 / _GIB)
        axes.xaxis.set_major_locator(_few_ticks(4))
        axes.yaxis.set_major_locator(_few_ticks(3))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel("s", loc="right", labelpad=-9)
        axes.set_ylabel("GiB", rotation=0, loc="top", labelpad=-6)
        return _svg(figure, name, description, {_CURVE: variable(design)})


def draw_tradeoff(tradeoff: Tradeoff, name: str, description: str) -> str:
    """Every configuration as a point with its spread, and the frontier; arguments and result as for `draw_panel`."""
    colours = {design: f"#0a0a{number:02x}" for number, design in enumerate(LOOKS)}
    with _axes(_TRADEOFF_INCHES) as (figure, axes):
        best = frontier(tradeoff.points)
        steps = [(point.cost.median, point.footprint.median) for point in best]
        axes.plot(
            *zip(*steps, strict=True), color=_LINE, linewidth=1, linestyle=(0, (4, 3)), drawstyle="steps-post", zorder=1
        )
        for point in tradeoff.points:
            colour = colours[point.design]
            cost, held = point.cost, point.footprint
            axes.plot([cost.low, cost.high], [held.median] * 2, color=colour, linewidth=0.9, zorder=2)
            axes.plot([cost.median] * 2, [held.low, held.high], color=colour, linewidth=0.9, zorder=2)
            size = 8 if point in best else 6
            axes.plot(
                cost.median,
                held.median,
                LOOKS[point.design].mark,
                color=colour,
                markersize=size,
                markeredgewidth=0,
                zorder=3,
            )
        axes.set_xlabel(tradeoff.cost_label)
        axes.set_ylabel(tradeoff.footprint_label)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.08, y=0.08)
        axes.grid()
        axes.set_axisbelow(True)
        return _svg(figure, name, description, {colours[design]: variable(design) for design in colours})


@contextmanager
def _axes(inches: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(cast(Any, _STYLE)):
        figure = Figure(figsize=inches)
        figure.patch.set_visible(False)
        left, bottom, right, top = _MARGINS_INCHES
        width, height = inches
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
        axes.patch.set_visible(False)
        yield figure, axes


def _few_ticks(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])


def _shortened(attribute: re.Match[str]) -> str:
    """A tenth of a point is finer than anyone sees."""
    return re.sub(r"\s*\n\s*", "", re.sub(r"(\d+\.\d)\d+", r"\1", attribute[0]))


def _svg(figure: Any, name: str, description: str, colours: dict[str, str]) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(xlink:)?href="#([^"]+)"', rf'href="#{name}-\2"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r' (?:d|x|y)="[^"]*"', _shortened, text)
    for colour, variable_name in (_VARIABLES | colours).items():
        text = text.replace(colour, variable_name)
    text = re.sub(r"font-size: ([\d.]+)px; font-family: [^;]*;", "", text)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<g/>|<defs>\s*</defs>", "", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-labelledby="{name}-title"', text)
    head = text.index(">") + 1
    text = f'{text[:head]}<title id="{name}-title">{description}</title>{text[head:]}'
    return re.sub(r"\n\s*", "\n", text)
