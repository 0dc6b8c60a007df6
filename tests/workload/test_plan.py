"""Plans: operations in pieces are those of the whole stream, whatever is due at once and wherever stretches begin."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.guest.allocator.operation import ALLOCATE
from pagetide.workload import plan
from pagetide.workload.lives import STAYS, Lives, lives
from pagetide.workload.plan import Moment, Plan, behind, plan_of
from pagetide.workload.stream import Mark

TIMES = st.integers(0, 6).map(float)
BLOCK = st.tuples(TIMES, TIMES | st.just(STAYS), st.integers(0, 10), st.integers(0, 2))
MOMENTS = TIMES.map(Moment) | TIMES.map(lambda at_s: Moment(at_s, allocated=True)) | TIMES.map(behind)


def part_of(blocks: list[tuple[float, float, int, int]], *, at_once: bool, in_order: bool) -> Lives:
    """Blocks (born, lived for, order, vCPU) as a part: all born and freed at once, or in the order of their births."""
    born, lived, order, vcpu = (np.array(column, float) for column in zip(*blocks, strict=True))
    if at_once:
        return lives(born[0], born[0] + lived[0], order, vcpu[0])
    rows = np.argsort(born, kind="stable") if in_order else slice(None)
    return lives(born[rows], (born + lived)[rows], order[rows], vcpu[rows])


PARTS = st.lists(
    st.builds(part_of, st.lists(BLOCK, min_size=1), at_once=st.booleans(), in_order=st.booleans()), min_size=1
)


@given(parts=PARTS, moments=st.lists(MOMENTS, max_size=4), end_s=TIMES, most=st.integers(1, 5))
@settings(deadline=None)
def test_pieces_are_the_whole(parts: list[Lives], moments: list[Moment], end_s: float, most: int) -> None:
    """Each vCPU's pieces are its operations, stretch by stretch; no two blocks have one slot at a time."""
    marks = [(Moment(0.0), Mark(0, "begin")), *((moment, Mark(0, "more")) for moment in sorted(moments))]
    made = Plan(parts, marks, end_s)
    whole = made.whole()
    if whole.nr_operations:
        whole.check()
    assert made.stretches == whole.stretches
    for vcpu in range(4):
        own = whole.operations_of(vcpu)
        with patch.object(plan, "PIECE_OPERATIONS", most):
            pieces = list(made.pieces(vcpu))
        operations = np.concatenate([piece.operations for piece in pieces])
        ends = np.cumsum([len(piece.operations) for piece in pieces])
        assert [int(end) for piece, end in zip(pieces, ends, strict=True) if piece.is_last] == own.ends.tolist()
        assert np.concatenate([piece.due_s for piece in pieces]).tolist() == own.due_s.tolist()
        assert max(len(piece.operations) for piece in pieces) <= max(most, len(parts) * 2)
        for column in ("kind", "order"):
            assert operations[column].tolist() == own.operations[column].tolist()
        held: dict[int, int] = {}
        for kind, order, slot in operations.tolist():
            assert vcpu < made.vcpus
            assert made.slot_firsts[vcpu] <= slot < made.slot_firsts[vcpu + 1]
            if kind == ALLOCATE:
                assert held.setdefault(slot, order) == order
                assert len(held) <= len(operations)
            else:
                assert held.pop(slot) == order


@pytest.mark.parametrize("blocks", [10, 10_000])
def test_what_is_over_leaves_its_slots(blocks: int) -> None:
    """Requests take as many slots as there are at once, and a burst those of the burst before."""
    begin_s = np.arange(blocks, dtype=float)
    requests = lives(begin_s, begin_s + 2.5, 0, 0)
    assert plan_of(requests, name="requests", end_s=1e6).slot_firsts.tolist() == [0, 3]
    bursts = [lives(at_s, at_s + 1, np.zeros(blocks), 0) for at_s in (0.0, 2.0, 4.0)]
    assert plan_of(*bursts, name="bursts", end_s=10.0).slot_firsts.tolist() == [0, blocks]
    meets = lives(1.0, 2.0, np.zeros(blocks), 0)  # the others' frees come behind its allocations
    assert plan_of(*bursts, meets, name="bursts", end_s=10.0).slot_firsts.tolist() == [0, 2 * blocks]
