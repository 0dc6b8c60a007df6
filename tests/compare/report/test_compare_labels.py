"""Where the labels of a scatter plot go."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pagetide.compare.report.labels import Box, placed

INSIDE = Box(0, 0, 300, 200)
FONT = 8.0


def test_a_lone_label_stands_to_the_right_of_its_point() -> None:
    """Close to it, at its height, with no line to it."""
    (label,) = placed([(100, 100)], ["scan"], INSIDE, FONT, [])
    assert 100 < label.box.left < 110
    assert label.box.bottom < 100 < label.box.top
    assert not label.has_leader


def test_a_label_stays_off_what_is_drawn() -> None:
    """A line that leaves the point to the right drives the label away from there."""
    line = Box(100, 99, 300, 101)
    (label,) = placed([(100, 100)], ["scan"], INSIDE, FONT, [line])
    assert not label.box.overlaps(line)


def test_points_in_one_place_have_labels_in_different_ones() -> None:
    """Ten designs that do the same are all named, the later ones with a line to the point."""
    labels = placed([(280, 20)] * 10, ["notify-array"] * 10, INSIDE, FONT, [])
    assert not any(one.box.overlaps(other.box) for one, other in itertools.combinations(labels, 2))
    assert all(INSIDE.holds(label.box) for label in labels)
    assert sum(label.has_leader for label in labels) >= 5


@given(st.lists(st.tuples(st.integers(10, 290), st.integers(10, 190)), min_size=1, max_size=9))
def test_labels_cover_no_label_and_no_point(points: list[tuple[int, int]]) -> None:
    """However the points lie: there is room for so few."""
    labels = placed(points, ["scan"] * len(points), INSIDE, FONT, [])
    assert not any(one.box.overlaps(other.box) for one, other in itertools.combinations(labels, 2))
    assert not any(
        label.box.left < x < label.box.right and label.box.bottom < y < label.box.top
        for label in labels
        for x, y in points
    )
