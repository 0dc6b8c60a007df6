"""Streams: from blocks with a birth and a death to operations, and what a stream must keep to."""

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
