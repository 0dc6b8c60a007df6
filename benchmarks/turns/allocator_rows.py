"""The guest's allocator: this build's time over that of the commit from which its per-CPU lists were asked for.

And this build's own by turns: with marks that keep blocks apart over without, and on two vCPUs over on one where they
share nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.turns.builds import ROOT, Build, Turn, both, turns_row

_TURNS = 15
_NO_SLOWER = 1.05
_ALONE = 1.1
_MARKS = 1.03
_TARGETS = (
    ("pair 0", 1, _NO_SLOWER),
    ("pair 9", 1, 0.8),
    ("random 0", 1, _NO_SLOWER),
    ("random 1-8", 1, _NO_SLOWER),
    ("random 9", 1, _NO_SLOWER),
    ("pair 0", 2, _NO_SLOWER),
    ("random 0", 2, _NO_SLOWER),
    ("pair 9", 2, 1 / 6),
    ("random 1-8", 2, 1 / 3),
    ("random 9", 2, 1 / 2),
)
_WORK = Path(__file__).with_name("allocator_work.py")


def run(commit: str) -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    with both(commit, _WORK) as (before, after):
        for work, vcpus, at_most in _TARGETS:
            line = f"{work} {vcpus}"
            name = f"allocator, {work}, {vcpus} vCPU, now / {commit}"
            yield turns_row(Turn(before, line), Turn(after, line), _TURNS, name, at_most)
        for work in ("pair 0", "pair 9"):
            name = f"allocator, {work}, 2 vCPU / 1 vCPU"
            yield turns_row(Turn(after, f"{work} 1"), Turn(after, f"{work} 2"), _TURNS, name, _ALONE)
    yield from marks()


def marks() -> Iterator[Row]:
    """This build's allocator with marks that keep blocks apart, over the same without."""
    with Build(ROOT, _WORK) as build:
        for vcpus in (1, 2):
            for work in ("pair 0", "random 1-8"):
                line = f"{work} {vcpus}"
                name = f"allocator, {work}, {vcpus} vCPU, marks / none"
                yield turns_row(Turn(build, line), Turn(build, f"{line} marks"), _TURNS, name, _MARKS)
