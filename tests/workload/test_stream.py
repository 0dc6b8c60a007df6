"""Streams: from blocks with a birth and a death to operations, and what a stream must keep to."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, lives
from pagetide.workload.plan import plan_of
from pagetide.workload.stream import Mark, Stream, StreamError, Stretch

TIMES = st.integers(0, 12).map(float)
BLOCKS = st.lists(st.tuples(TIMES, TIMES | st.just(STAYS), st.integers(0, 10), st.integers(0, 2)), min_size=1)


def stream(*blocks: tuple[float, float, int, int], end_s: float = 20.0) -> Stream:
    """The stream of blocks (born, lived for, order, vCPU)."""
    born, lived, order, vcpu = (np.array(column, float) for column in zip(*blocks, strict=True))
    return plan_of(lives(born, born + lived, order, vcpu), name="blocks", end_s=end_s).whole()


@given(blocks=BLOCKS, end_s=st.integers(0, 25).map(float))
@settings(deadline=None)
def test_every_block_is_allocated_and_freed_in_its_slot(
    blocks: list[tuple[float, float, int, int]], end_s: float
) -> None:
    """Played back, the operations hold what the blocks' lives say, and use no more slots than blocks at once."""
    made = stream(*blocks, end_s=end_s)
    if made.nr_operations:
        made.check()
    expected = [b for born, lived, *_ in blocks for b in (born, born + lived) if b <= end_s]
    assert made.at_s.tolist() == sorted(expected)
    for vcpu in range(3):
        work = made.operations_of(vcpu)
        held: dict[int, int] = {}
        most = 0
        for kind, order, slot in work.operations.tolist():
            if kind == ALLOCATE:
                assert slot not in held
                held[slot] = order
            else:
                assert held.pop(slot) == order
            most = max(most, len(held))
        firsts = [*made.slot_firsts, *[made.slot_firsts[-1]] * 3]
        assert firsts[vcpu + 1] - firsts[vcpu] == most
        left = [order for born, lived, order, owner in blocks if owner == vcpu and born <= end_s < born + lived]
        assert sorted(held.values()) == sorted(left)


def test_marks_make_stretches() -> None:
    """A stretch begins at the due time of the operation before it and lasts until that of its own last one."""
    made = stream((0, 5, 0, 0), (1, 1, 3, 1), (7, STAYS, 2, 0))
    assert made.at_s.tolist() == [0, 1, 2, 5, 7]
    marks = (Mark(0, "a"), Mark(2, "b"), Mark(5, "c"))
    marked = made._replace(marks=marks)
    assert marked.stretches == (
        Stretch(marks[0], 0.0, 1.0, 0.0, 9 * PAGE_SIZE_BYTES),
        Stretch(marks[1], 1.0, 7.0, 2.0, 4 * PAGE_SIZE_BYTES),
        Stretch(marks[2], 7.0, 7.0, None, 0),
    )
    first, second = (marked.operations_of(vcpu) for vcpu in (0, 1))
    assert first.ends.tolist() == [1, 3, 3]
    assert second.ends.tolist() == [1, 2, 2]
    assert first.due_s.tolist() == [0, 5, 7]
    assert second.operations["kind"].tolist() == [ALLOCATE, FREE]


def test_a_block_may_be_freed_elsewhere() -> None:
    """Its free is run by that vCPU, and is of the slot of the one that allocated it; nobody fills another's slot."""
    made = stream((0, 5, 0, 0), (1, 1, 3, 1))
    made = made._replace(freed_by=np.array([0, 1, 1, 2], np.uint16))
    made.check()
    assert made.vcpus == 3
    first, second, third = (made.operations_of(vcpu).operations.tolist() for vcpu in range(3))
    assert first == [(ALLOCATE, 0, 0)]
    assert second == [(ALLOCATE, 3, 1), (FREE, 3, 1)]
    assert third == [(FREE, 0, 0)]
    with pytest.raises(StreamError, match="another vCPU"):
        made._replace(freed_by=np.array([1, 1, 1, 2], np.uint16)).check()


def played(made: Stream, choices: Iterator[int]) -> str:
    """What becomes of a stream whose vCPUs each follow their own order, and are chosen in this one.

    As machines do it: whoever finds the slot full that it is to fill, or empty that it is to free, waits.
    """
    lives_of: dict[tuple[int, int], int] = {}
    left: dict[int, list[tuple[bool, tuple[int, int], int]]] = {vcpu: [] for vcpu in range(made.vcpus)}
    rows = zip(made.runs_on.tolist(), made.kind.tolist(), made.vcpu.tolist(), made.slot.tolist(), strict=True)
    for life, (who, kind, vcpu, slot) in enumerate(rows):
        if kind == ALLOCATE:
            lives_of[vcpu, slot] = life
        left[who].append((kind == ALLOCATE, (vcpu, slot), lives_of[vcpu, slot]))
    held: dict[tuple[int, int], int] = {}
    while can := [who for who, own in left.items() if own and (own[0][1] in held) != own[0][0]]:
        fills, place, life = left[can[next(choices) % len(can)]].pop(0)
        if fills:
            held[place] = life
        elif held.pop(place) != life:
            return "another block was freed"
    return "all wait" if any(left.values()) else "all has run"


def freed_elsewhere(*rows: tuple[float, int, int, int, int, int]) -> Stream:
    """The stream of rows (at, kind, order, slot, vCPU, freed by)."""
    types = np.float64, np.uint8, np.uint8, np.int32, np.uint16, np.uint16
    at_s, kind, order, slot, vcpu, freed_by = map(np.array, zip(*rows, strict=True), types)
    made = Stream(at_s, kind, order, slot, vcpu, (Mark(0, "all"),), rows[-1][0], freed_by)
    made.check()
    return made


def test_who_frees_for_another_may_be_early() -> None:
    """With slots as they were it frees the first block, and so the second one's is never emptied."""
    made = freed_elsewhere(
        (0.0, ALLOCATE, 0, 0, 0, 0), (1.0, FREE, 0, 0, 0, 0), (2.0, ALLOCATE, 0, 0, 0, 0), (3.0, FREE, 0, 0, 0, 1)
    )  # fmt: skip
    assert played(made, itertools.cycle([0, 1])) == "another block was freed"
    own = made.with_slots_by_freer()
    assert own.slot.tolist() == [0, 0, 1, 1]
    assert played(own, itertools.cycle([0, 1])) == "all has run"
    assert own.with_slots_by_freer().slot.tolist() == own.slot.tolist()


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 2)), min_size=10, max_size=60),
    choices=st.lists(st.integers(0, 2), min_size=4),
)
@settings(deadline=None)
def test_whoever_is_early_every_block_is_freed_once(steps: list[tuple[int, int, int]], choices: list[int]) -> None:
    """In any order of three vCPUs, whatever slots they fill and whoever frees what is in them."""
    rows: list[tuple[float, int, int, int, int, int]] = []
    full: set[tuple[int, int]] = set()
    for at, (vcpu, slot, freer) in enumerate(steps):
        place = vcpu, slot
        rows.append((float(at), *((FREE, 0, slot, vcpu, freer) if place in full else (ALLOCATE, 0, slot, vcpu, vcpu))))
        full ^= {place}
    made = freed_elsewhere(*rows).with_slots_by_freer()
    made.check()
    assert played(made, itertools.cycle(choices)) == "all has run"


def test_an_allocation_has_its_migratetype_with_its_order() -> None:
    """A free has the order alone, whatever is said of it."""
    made = stream((0, 5, 9, 0), (1, 1, 3, 0))._replace(migratetype=np.array([2, 1, 1, 1], np.uint8))
    made.check()
    found = made.operations_of(0).operations
    assert found["order"].tolist() == [9 | 2 << 4, 3 | 1 << 4, 3, 9]
    assert made.peak_bytes == 520 * PAGE_SIZE_BYTES


def test_what_it_allocates_is_counted() -> None:
    """Over a stretch, and at most at once."""
    made = stream((0, 5, 0, 0), (1, 1, 3, 1), (7, STAYS, 2, 0))
    assert made.allocated_bytes(0, 2) == 9 * PAGE_SIZE_BYTES
    assert made.allocated_bytes(2, 5) == 4 * PAGE_SIZE_BYTES
    assert made.peak_bytes == 9 * PAGE_SIZE_BYTES


def test_what_is_due_at_once_can_be_a_stretch_of_its_own() -> None:
    """So that the clock stands still until a guest holds what it begins with."""
    blocks = lives([0.0, 0.0, 1.0], [5.0, STAYS, 2.0], [0, 0, 3], [0, 0, 1])
    made = plan_of(blocks, name="blocks", end_s=20.0, starting="starting")
    assert made.marks == (Mark(0, "starting"), Mark(2, "blocks"))


GOOD = stream((0, 5, 1, 0), (1, STAYS, 3, 1))
ARRAYS = {
    "at_s": [0.0, 1.0, 5.0],
    "kind": [ALLOCATE, ALLOCATE, FREE],
    "order": [1, 3, 1],
    "slot": [0, 0, 0],
    "vcpu": [0, 1, 0],
}


def test_a_good_stream_passes() -> None:
    """The control of the test below."""
    assert {name: getattr(GOOD, name).tolist() for name in ARRAYS} == ARRAYS
    GOOD.check()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"at_s": [], "kind": [], "order": [], "slot": [], "vcpu": []}, "has no operations"),
        ({"at_s": [0.0, float("nan"), 5.0]}, "no finite time"),
        ({"at_s": [-1.0, 1.0, 5.0]}, "begins before 0 s"),
        ({"at_s": [0.0, 6.0, 5.0]}, "is due before the one that it follows"),
        ({"kind": [0, 7, 1]}, "neither allocates nor frees"),
        ({"order": [1, 11, 1]}, "larger than order 10"),
        ({"vcpu": [0, 64, 0]}, "more than 64 vCPUs"),
        ({"slot": [0, -1, 0]}, "out of range"),
        ({"slot": [0, 1 << 28, 0]}, "out of range"),
        ({"kind": [1, 0, 1]}, "frees a slot that holds nothing"),
        ({"slot": [0, 0, 1]}, "frees a slot that holds nothing"),
        ({"kind": [0, 1, 1], "vcpu": [0, 0, 0], "order": [1, 1, 1]}, "frees a slot that holds nothing"),
        ({"vcpu": [0, 0, 0]}, "fills a slot that holds a block already"),
        ({"order": [1, 3, 2]}, "another order"),
        ({"marks": ()}, "marks that are out of order"),
        ({"marks": (Mark(1, "a"),)}, "marks that are out of order"),
        ({"marks": (Mark(0, "a"), Mark(0, "b"))}, "marks that are out of order"),
        ({"marks": (Mark(0, "a"), Mark(4, "b"))}, "marks that are out of order"),
        ({"end_s": 4.0}, "ends before its last operation"),
        ({"end_s": float("inf")}, "ends before its last operation"),
    ],
)
def test_a_stream_that_cannot_be_run_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """Each rule of the columns and marks is checked."""
    fields: dict[str, Any] = {
        name: np.array(value, getattr(GOOD, name).dtype) if name in ARRAYS else value for name, value in changes.items()
    }
    with pytest.raises(StreamError, match=sentence):
        GOOD._replace(**fields).check()
