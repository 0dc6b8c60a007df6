"""Where the labels of a scatter plot go: beside their points, off the other points and off each other."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_CHARACTER_WIDTH = 0.56  # of the font's size, on average
_LINE_HEIGHT = 1.15
_CLEAR_POINTS = 5.0
_RINGS_POINTS = (7.0, 15.0, 24.0, 34.0, 45.0, 58.0, 72.0, 88.0)
_DIRECTIONS = 16


class Box(NamedTuple):
    """A rectangle, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether they have an area in common."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def holds(self, other: "Box") -> bool:
        """Whether the other is inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


class Label(NamedTuple):
    """Where a label stands, and whether it is so far from its point that a line should lead there."""

    box: Box
    has_leader: bool


def placed(
    points: Sequence[tuple[float, float]], texts: Sequence[str], inside: Box, font_points: float, covered: Sequence[Box]
) -> list[Label]:
    """A place for each label: the nearest to its point, to the right before others, where it covers nothing.

    A label that finds no such place stands to the right of its point.

    Args:
        points: where the points are, in typographic points.
        texts: the labels.
        inside: what they have to stay within.
        font_points: the font's size.
        covered: what else is drawn, and no label may cover.
    """
    taken = [*covered]
    taken += [Box(x - _CLEAR_POINTS, y - _CLEAR_POINTS, x + _CLEAR_POINTS, y + _CLEAR_POINTS) for x, y in points]
    labels: dict[int, Label] = {}
    # The rightmost have the least choice.
    for index in sorted(range(len(points)), key=lambda one: (-points[one][0], -points[one][1])):
        label = _place(*points[index], texts[index], inside, font_points, taken)
        labels[index] = label
        taken.append(label.box)
    return [labels[index] for index in range(len(points))]


def _place(x: float, y: float, text: str, inside: Box, font_points: float, taken: Sequence[Box]) -> Label:
    width, height = len(text) * font_points * _CHARACTER_WIDTH, font_points * _LINE_HEIGHT
    for ring, radius in enumerate(_RINGS_POINTS):
        for turn in sorted(range(_DIRECTIONS), key=lambda one: min(one, _DIRECTIONS - one)):
            box = _beside(x, y, radius, 2 * math.pi * turn / _DIRECTIONS, width, height)
            if inside.holds(box) and not any(map(box.overlaps, taken)):
                return Label(box, ring > 0)
    return Label(_beside(x, y, _RINGS_POINTS[0], 0.0, width, height), False)


def _beside(x: float, y: float, radius: float, angle: float, width: float, height: float) -> Box:
    """The box of a text that a point has in this direction, at this distance from its nearest edge."""
    towards_x, towards_y = math.cos(angle), math.sin(angle)
    middle_x = x + towards_x * radius + (width / 2) * (1 if towards_x > 0.1 else -1 if towards_x < -0.1 else 0)
    middle_y = y + towards_y * (radius + height / 2)
    return Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)
