"""Samples put on a grid, against the rules written out in plain Python."""

import itertools
import math
from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagetide.fleet.usage.canonical import Grid
from pagetide.fleet.usage.oddities import ODD_SHARE_MAX, Count, Oddities, sentences, together
from pagetide.fleet.usage.regular import Samples, regular

STEP_S = 10
STEPS = 12

Row = tuple[int, float, float, float]

rows_of_samples = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.integers(0, STEPS - 1).map(lambda step: float(step * STEP_S)), st.floats(0, (STEPS - 1) * STEP_S)),
        st.sampled_from([0.0, 100.0, 200.0]),
        st.sampled_from([0.0, 50.0, 100.0, 150.0]),
    ),
    max_size=30,
).map(lambda rows: sorted(rows, key=lambda row: row[:2]))


def samples_of(rows: list[Row]) -> Samples:
    """Rows as columns."""
    vm, *others = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 4
    return Samples(vm.astype(np.int64), *others)


def put_on_grid(rows: list[Row]) -> tuple[dict[tuple[int, int], tuple[float, float]], dict[str, int]]:
    """The rules of oddities.py, one sample and one step after another: what is known by VM and step, and the counts."""
    known: dict[tuple[int, int], tuple[float, float]] = {}
    counts: dict[str, int] = defaultdict(int)
    late: set[tuple[int, int]] = set()
    for before, row in zip([None, *rows], rows, strict=False):
        vm, time_s, capacity, used = row
        step = min(math.floor(time_s / STEP_S + 0.5), STEPS - 1)
        had = known.get((vm, step), (0.0, 0.0))
        known[vm, step] = (max(had[0], capacity), max(had[1], used))
        counts["off"] += capacity == 0
        counts["over"] += 0 < capacity < used
        if before is not None and before[0] == vm:
            since_s = time_s - before[1]
            counts["repeated"] += since_s == 0
            counts["dense"] += 0 < since_s < STEP_S / 2
            counts["resized"] += 0 not in (capacity, before[2]) and capacity != before[2]
            if since_s > 1.5 * STEP_S:
                late.add((vm, step))
    for vm in {vm for vm, _ in known}:
        own = sorted(step for one, step in known if one == vm)
        for one, other in itertools.pairwise(own):
            for step in range(one + 1, other):
                if step - one <= 3:
                    known[vm, step] = known[vm, one]
                if (vm, other) in late:
                    counts["held_over" if step - one <= 3 else "unknown"] += 1
    return {cell: (capacity, min(capacity, used)) for cell, (capacity, used) in known.items()}, counts


@given(rows_of_samples)
def test_samples_are_put_on_a_grid_by_the_rules(rows: list[Row]) -> None:
    """Values, what is known, and every count are those of the rules, whatever the samples."""
    usage, odd = regular(samples_of(rows), ("a", "b", "c"), Grid(0, STEP_S, STEPS))
    known, counts = put_on_grid(rows)
    for vm in range(3):
        for step in range(STEPS):
            assert bool(usage.valid[vm, step]) == ((vm, step) in known)
            here = known.get((vm, step), (0.0, 0.0))
            assert (usage.capacity_bytes[vm, step], usage.used_bytes[vm, step]) == here
    assert {name: count.samples for name, count in odd.counts.items()} == {
        name: count for name, count in counts.items() if count
    }
    assert odd.samples == len(rows) + counts["held_over"] + counts["unknown"]


def test_a_clock_that_drifts_makes_nothing_odd() -> None:
    """Samples 10.1 s apart miss an instant of the grid in the end: it has the value before, and is not missing."""
    rows = [(0, index * 10.1, 100.0, float(index)) for index in range(99)]
    usage, odd = regular(samples_of(rows), ("a",), Grid(0, 10, 100))
    assert odd == Oddities(99)
    assert usage.valid.all()
    assert np.array_equal(np.diff(usage.used_bytes[0]), [1] * 49 + [0] + [1] * 49)


def test_counts_of_parts_add_up() -> None:
    """Samples, VMs and the share are those of both; the worst VM is the worst of all; rules stand in their order."""
    one = Oddities(10, {"resized": Count(3, 2, ("a", 2))})
    other = Oddities(30, {"resized": Count(6, 3, ("c", 4)), "over": Count(10, 1, ("d", 10))})
    both = together([one, other])
    assert both == Oddities(40, {"over": Count(10, 1, ("d", 10)), "resized": Count(9, 5, ("c", 4))})
    assert list(both.counts) == ["over", "resized"]
    assert both.odd_share == 0.25 > ODD_SHARE_MAX
    assert sentences(both)[0] == "10 samples with more used than there is (of VM d): cut to the capacity"
    assert "9 samples with another capacity than before (of 5 VMs, the most 4 of VM c)" in sentences(both)[1]
