"""Pictures made small for the page: what is seen stays."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pagetide.compare.report.plots import Curve, draw_orders, draw_panel, draw_tradeoff
from pagetide.compare.report.tradeoff import Point, Tradeoff
from pagetide.compare.results.spread import Spread
from pagetide.pages.palette import variable
from pagetide.pages.svg import for_page

GIB = 1 << 30


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """Matplotlib opens its fonts with the first text, and keeps them open."""
    draw_orders([(0, Spread(1, 1, 1, 1))], "x", "scan", 1, "first", "")


def drawing(body: str) -> str:
    """An SVG file like matplotlib's."""
    return f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g>{body}</g></svg>'


def path_of(drawn: str) -> str:
    """What its only path draws."""
    paths = [one.get("d", "") for one in ET.fromstring(drawn).iter("path")]
    assert len(paths) == 1
    return paths[0]


def places(path: str) -> list[tuple[float, float]]:
    """Every point of a polyline that is told in steps."""
    found = [(0.0, 0.0)]
    for command, numbers in re.findall(r"([Mlhv])([^Mlhvz]*)", path):
        steps = [float(number) for number in re.findall(r"-?\d*\.?\d+", numbers)]
        if command in "hv":
            steps = [step for one in steps for step in ((one, 0.0) if command == "h" else (0.0, one))]
        for across, up in zip(steps[::2], steps[1::2], strict=True):
            x, y = (0.0, 0.0) if command == "M" else found[-1]
            found.append((x + across, y + up))
    return found[1:]


def test_points_on_a_straight_way_are_left_out_and_peaks_stay() -> None:
    """A flat stretch keeps its ends; a peak of one sample, and a way back along the same line, stay."""
    path = path_of(for_page(drawing('<path d="M 0 1 L 1 1 L 2 1 L 2.04 5 L 2.1 1 L 9 1"/>'), "x", "", {}))
    assert path == "M0 1h2v4l.1-4h6.9"
    assert path_of(for_page(drawing('<path d="M 0 1 L 5 1 L 3 1"/>'), "x", "", {})) == "M0 1h5-2"


def test_a_label_keeps_what_it_says() -> None:
    """Colours are replaced where something is painted, and nowhere else; so are names of attributes."""
    said = "fill #0a0a01 and xlink:href xmlns=&quot;x&quot;"
    body = f'<path style="fill: #0a0a01" d="M 0 1 L 1 2"/><text stroke="#0a0a01">{said}</text>'
    drawn = for_page(drawing(body), "x", "in #0a0a01", {"#0a0a01": "var(--ink)"})
    root = ET.fromstring(drawn)
    (text,) = root.iter("text")
    assert text.text == 'fill #0a0a01 and xlink:href xmlns="x"'
    assert text.attrib["stroke"] == "var(--ink)"
    assert [one.attrib["style"] for one in root.iter("path")] == ["fill:var(--ink)"]
    assert [one.text for one in root.iter("title")] == ["in #0a0a01"]


def test_each_piece_of_a_path_stays_one() -> None:
    """Two pieces are not joined, and a closed one stays closed; curves are left alone but for their digits."""
    assert path_of(for_page(drawing('<path d="M 0 1 L 1 2 z M 3 4 L 5 6"/>'), "x", "", {})) == "M0 1l1 1zM3 4l2 2"
    curve = "M 0 1.2345 C 1 2 3 4 5.678 6"
    assert path_of(for_page(drawing(f'<path d="{curve}"/>'), "x", "", {})) == "M 0 1.2 C 1 2 3 4 5.6 6"


def test_identifiers_are_the_pictures_own() -> None:
    """What is referred to is named after the picture, everywhere alike, and other identifiers go."""
    body = '<g id="axes"><defs><path id="p1" d="M 0 0"/></defs><g mask="url(#p1)"><use href="#p1"/></g></g>'
    drawn = for_page(drawing(body), "here", "<what>", {})
    assert set(re.findall(r'id="([^"]*)"', drawn)) == {"here-title", "here-p1"}
    assert "url(#here-p1)" in drawn
    assert 'href="#here-p1"' in drawn
    assert "&lt;what&gt;" in drawn


def test_a_panel_reaches_as_high_as_the_host_held() -> None:
    """A spike of one sample in ten thousand is drawn to its full height, and the line has the design's colour."""
    t_s = np.linspace(0, 30, 10_000)
    held = np.full(10_000, 0.5 * GIB)
    held[4321] = GIB
    drawn = draw_panel(Curve(t_s, np.zeros(10_000), held), "scan", 30, GIB, "p", "a panel")
    root = ET.fromstring(drawn)
    (line,) = [one for one in root.iter("path") if f"stroke:{variable('scan')}" in one.get("style", "")]
    heights = [y for _, y in places(line.get("d", ""))]
    _, _, _, height = map(float, root.attrib["viewBox"].split())
    bottom, top = 108 - 0.26 * 72, 0.16 * 72
    assert height == 108
    full = bottom - (bottom - top) / 1.04
    assert min(heights) == pytest.approx(full, abs=0.06)
    assert heights[-1] == pytest.approx((bottom + full) / 2, abs=0.06)
    assert "30 s" in [one.text for one in root.iter("text")]


def test_a_tradeoff_names_every_point() -> None:
    """With zero costs as well; axes begin at nothing."""
    still = Spread(0, 0, 0, 2)
    points = [Point("off", "off", still, Spread(2, 2, 2, 2)), Point("scan", "scan, order 0", still, Spread(1, 1, 1, 2))]
    drawn = draw_tradeoff(Tradeoff("a title", "refaulted, GiB", "footprint, GiB", points), "t", "points")
    texts = [one.text for one in ET.fromstring(drawn).iter("text")]
    assert {"off", "scan, order 0", "refaulted, GiB", "footprint, GiB"} <= set(texts)


def test_orders_are_drawn_at_their_numbers() -> None:
    """Each order has a tick, measured or not."""
    spreads = [(0, Spread(9, 8, 10, 3)), (4, Spread(4, 4, 4, 3)), (9, Spread(1, 1, 1, 3))]
    texts = [one.text for one in ET.fromstring(draw_orders(spreads, "CPU, s", "scan", 9, "o", "orders")).iter("text")]
    assert {"order", "CPU, s", *map(str, range(10))} <= set(texts)
