"""What the pictures of a page have in common: matplotlib draws them, in colours that stand for the page's variables."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pagetide.pages.svg import for_page

INK, FAINT, GUEST, CURVE, LINE = (f"#0{number}0{number}0{number}" for number in range(1, 6))
"""Colours to draw with; in the page they are text, lines of the grid, the guest's use, a curve's own, and soft text."""

_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GUEST: "var(--guest)",
    LINE: "var(--ink-soft)",
}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pagetide",  # identifiers are random without it
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "path.simplify": True,
    "text.parse_math": False,
}


@contextmanager
def axes_of(inches: tuple[float, float], margins: tuple[float, float, float, float]) -> Iterator[tuple[Any, Any]]:
    """A figure of this size, and its only axes, within margins: left, bottom, right, top."""
    with drawing():
        yield new_axes(inches, margins)


@contextmanager
def drawing() -> Iterator[None]:
    """Within, pictures are made and drawn in the page's style."""
    import matplotlib as mpl

    with mpl.rc_context(cast(Any, _STYLE)):
        yield


def new_axes(inches: tuple[float, float], margins: tuple[float, float, float, float]) -> tuple[Any, Any]:
    """A figure and its axes, to be made and drawn within `drawing`; arguments as for `axes_of`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches)
    figure.patch.set_visible(False)
    left, bottom, right, top = margins
    width, height = inches
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    axes.patch.set_visible(False)
    return figure, axes


def few_ticks(count: int) -> Any:
    """A locator of so many ticks at round numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])


def svg_of(figure: Any, name: str, description: str, colours: dict[str, str]) -> str:
    """A figure as an SVG element for the page.

    Args:
        figure: matplotlib's.
        name: what its identifiers begin with: no two pictures of a page may share it.
        description: for who cannot see it.
        colours: what takes the place of a colour, besides those of this module.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return for_page(file.getvalue(), name, description, _VARIABLES | colours)
