"""Work that is kept."""

import pytest

from pagetide.workload import kept
from pagetide.workload.burst import burst
from pagetide.workload.kept import KeptWork


@pytest.mark.parametrize(("most", "is_kept"), [(0, False), (1 << 20, True)])
def test_pieces_are_made_once_unless_there_is_too_much(
    most: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time they are those of the work itself, for each vCPU its own."""
    monkeypatch.setattr(kept, "KEPT_OPERATIONS_MAX", most)
    plan = burst(eat_bytes=64 << 20, bursts=2, hold_s=1.0, vcpus=2, mix={2: 0.5, 0: 0.5}, seed=1)
    work = KeptWork(plan)
    for vcpu in range(2):
        times = [list(work.pieces(vcpu)) for _ in range(2)]
        assert all(one is again for one, again in zip(*times, strict=True)) == is_kept
        for pieces in times:
            for piece, made in zip(pieces, plan.pieces(vcpu), strict=True):
                assert (piece.operations == made.operations).all()
                assert (piece.due_s == made.due_s).all()
                assert piece.is_last == made.is_last
    assert work.stretches == plan.stretches
    assert (work.whole().at_s == plan.whole().at_s).all()
