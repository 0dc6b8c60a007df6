"""The picture of a run: `tools/draw_run` on a simulated one."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec

from pagetide import cli
from pagetide.machine.result import RunResult

TOOL = Path(__file__).parents[2] / "tools/draw_run"
LEFT, RIGHT, TOP, BOTTOM = 64, 904, 58, 300
"""Of the picture's frame."""


def heights(svg: ET.Element, shape: str) -> list[float]:
    """How far up the corners of a shape are, as shares of the frame."""
    (found,) = [each for each in svg.iter() if each.get("class") == shape and each.get("points")]
    corners = [tuple(map(float, corner.split(","))) for corner in (found.get("points") or "").split()]
    assert all(LEFT <= x <= RIGHT + 0.5 for x, _ in corners)
    return [(BOTTOM - y) / (BOTTOM - TOP) for _, y in corners]


def test_the_curves_are_as_high_as_the_figures(tmp_path: Path) -> None:
    """Highest and lowest of what was used and held are in the picture, and when each burst was back."""
    run, picture = tmp_path / "run.json", tmp_path / "run.svg"
    assert cli.main(["run", "--machine", "simulated", "--ram", "128MiB", "--bursts", "2", "--json", str(run)]) == 0
    subprocess.run([sys.executable, TOOL, run, picture], check=True)
    result = msgspec.json.decode(run.read_bytes(), type=RunResult)
    svg = ET.fromstring(picture.read_text())
    for shape, sizes in (
        ("guest", result.samples.guest_used_bytes),
        ("edge", result.samples.host_resident_bytes),
    ):
        drawn = heights(svg, shape)
        for one, other in ((max(drawn), max(sizes)), (min(drawn), min(sizes))):
            assert abs(one - other / result.config.ram_bytes) < 0.001
    backs = [text.text for text in svg.iter() if text.text and text.text.startswith("back after")]
    assert backs == [f"back after {burst.return_lag_s:.2f} s" for burst in result.bursts]
    assert len(backs) == 2
