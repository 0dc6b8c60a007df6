"""The guest's allocator: this build's time over that of the commit from which its per-CPU lists were asked for."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.turns.builds import both, turns_row

BEFORE = "16921e9"
"""The commit that the targets are stated against."""

_TURNS = 15
_NO_SLOWER = 1.05
_TARGETS = (
    ("pair 0", 1, _NO_SLOWER),
    ("pair 9", 1, 0.8),
    ("random 0", 1, _NO_SLOWER),
    ("random 1-8", 1, _NO_SLOWER),
    ("random 9", 1, _NO_SLOWER),
    ("pair 9", 2, 1 / 6),
    ("random 1-8", 2, 1 / 3),
    ("random 9", 2, 1 / 2),
)
_WORK = Path(__file__).with_name("allocator_work.py")


def run(commit: str) -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    with both(commit, _WORK) as builds:
        for work, vcpus, at_most in _TARGETS:
            name = f"allocator, {work}, {vcpus} vCPU, now / {commit}"
            yield turns_row(builds, f"{work} {vcpus}", _TURNS, name, at_most)
