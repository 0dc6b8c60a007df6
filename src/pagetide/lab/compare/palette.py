"""One colour and one mark for each design, the same in every picture.

The hues are those of Paul Tol's *muted* scheme (Colour Schemes, SRON/EPS/TN/09-002), which people with any of the usual
deficiencies of colour vision can tell apart, and grey for the control; on a dark ground each is lightened or darkened
to stand out from it. Nothing is told by colour alone: each curve has a panel of its own, each point a mark.
"""

from typing import NamedTuple


class Look(NamedTuple):
    """How a design is drawn: its colour on light and on dark ground, and its mark in matplotlib's letters."""

    light: str
    dark: str
    mark: str


LOOKS = {
    "off": Look("#666666", "#a8a8a8", "X"),
    "sync": Look("#cc6677", "#e08a98", "v"),
    "notify": Look("#b08a1e", "#ddcc77", "s"),
    "notify-array": Look("#7a7a1f", "#b5b54a", "p"),
    "hybrid": Look("#117733", "#3fae66", "D"),
    "scan": Look("#332288", "#8f83e0", "o"),
    "scan-restart": Look("#2f9fd0", "#88ccee", "<"),
    "cursor": Look("#2a8c7f", "#44c0aa", "^"),
    "shared": Look("#882255", "#d45f9c", "*"),
    "balloon": Look("#aa4499", "#cf7fc2", "P"),
}
"""By design."""


def variable(design: str) -> str:
    """The CSS variable that has a design's colour in the reader's theme."""
    return f"var(--design-{design})"
