"""A simulated day: what it takes per GiB of its guest, and this build's figures over those of an earlier commit."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.turns.builds import Turn, both, turns_row

_WORK = Path(__file__).with_name("day_work.py")
# Memory is the same each time, but for some pages.
_TARGETS = (("cpu", "CPU", "s", 5, 0.07, 0.07 / 0.13), ("memory", "memory", "MiB", 1, 6.0, 6 / 27))
_WHOLE_MIB_MAX = 8 * 1024


def run(commit: str) -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    with both(commit, _WORK) as builds:
        for work, what, unit, turns, at_most, ratio_at_most in _TARGETS:
            before, after = (Turn(build, work) for build in builds)
            yield turns_row(before, after, turns, f"simulated day, {what}, now / {commit}", ratio_at_most)
            least = min(builds[1].take(work) for _ in range(turns))
            yield Row(f"simulated day, {what} per GiB of guest", least, unit, at_most=at_most)
        yield Row("simulated day of 1 TiB, memory", builds[1].take("whole"), "MiB", at_most=_WHOLE_MIB_MAX)
