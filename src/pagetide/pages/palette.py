"""One colour and one mark for each design, the same in every picture.

The hues are near those of Paul Tol's *muted* scheme (Colour Schemes, SRON/EPS/TN/09-002), with grey for the control.
They were moved until any two are apart for people with any of the usual deficiencies of colour vision, on light ground
and on dark, and each stands out from its ground: test_palette.py has the measure. Nothing is told by
colour alone: each curve has a panel of its own, each point a mark and a label.
"""

from typing import NamedTuple

from pagetide.guest.reporting.registry import DESIGNS


class Look(NamedTuple):
    """How a design is drawn: its colour on light and on dark ground, and its mark in matplotlib's letters."""

    light: str
    dark: str
    mark: str


_CHOSEN = {
    "off": Look("#626660", "#a4a8a2", "X"),
    "sync": Look("#cf5782", "#e9748c", "v"),
    "notify": Look("#b08a1e", "#ddcc77", "s"),
    "notify-array": Look("#7a7a1f", "#b5b54a", "p"),
    "hybrid": Look("#117733", "#3fae66", "D"),
    "scan": Look("#332288", "#8f83e0", "o"),
    "scan-restart": Look("#2899c9", "#88ccee", "<"),
    "cursor": Look("#328a81", "#5cccc6", "^"),
    "shared": Look("#7b255a", "#cc629b", "*"),
    "balloon": Look("#aa4499", "#cd82c2", "P"),
}

OTHER = Look("#931eec", "#932fe9", "h")
"""A design's for which none was chosen."""

LOOKS = {design: _CHOSEN.get(design, OTHER) for design in DESIGNS}
"""By design."""


def variable(design: str) -> str:
    """The CSS variable that has a design's colour in the reader's theme."""
    return f"var(--design-{design})"
