"""Work that is kept."""

import numpy as np
import pytest

from pagetide.machine.config import RunConfig
from pagetide.machine.workloads import has_migratetypes
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
    assert not work.has_migratetypes
    assert (work.whole().at_s == plan.whole().at_s).all()


def test_a_stream_that_says_what_can_be_moved_says_so_when_it_is_kept() -> None:
    """A guest's zone is made as for the stream itself, unless the settings say otherwise."""
    stream = burst(eat_bytes=1 << 20, bursts=1, hold_s=1.0, vcpus=1, mix={0: 1.0}, seed=1).whole()
    typed = stream._replace(migratetype=np.zeros(stream.nr_operations, np.uint8))
    assert [has_migratetypes(RunConfig(), KeptWork(work)) for work in (stream, typed)] == [False, True]
    assert not has_migratetypes(RunConfig(migratetypes=False), KeptWork(typed))
