"""What a worker makes of a cell."""

from typing import Any, get_args

import msgspec
import pytest

from pagetide.compare.grid.axes import Choice, make_grid
from pagetide.compare.grid.worker import Job, by_work, lost_job, run_job, work_of
from pagetide.compare.results.cells import Cell
from pagetide.machine.config import RunConfig, Workload
from pagetide.machine.costs import read_costs
from pagetide.machine.settings.file import make_config
from pagetide.machine.workloads import make_work
from pagetide.workload.stream import Work
from tests.commands.grids.test_compare_command import run_of

TINY = {"ram": "16MiB", "bursts": 1, "rest": 1.0, "eat-share": 0.5, "order": 6, "delay": 0.1}


@pytest.mark.parametrize("workload", get_args(Workload))
def test_the_work_that_is_kept_is_the_right_one(workload: str) -> None:
    """All designs and faults of a seed share one plan, which is that of their settings; another seed has its own."""
    settings: dict[str, Any] = {"ram": "64MiB"} | ({} if workload == "burst" else {"duration": 6.0})
    choice = Choice(workloads=(workload,), repeat=2, machine="live", settings=settings)
    cells, made = make_grid(choice).cells, list[Work]()
    assert sorted(cell.key for cell in by_work(cells)) == sorted(cell.key for cell in cells)
    for cell in by_work(cells):
        work, expected = work_of(cell.config), make_work(cell.config)
        assert (work.stretches, work.end_s) == (expected.stretches, expected.end_s)
        for vcpu in range(expected.vcpus):
            for piece, same in zip(work.pieces(vcpu), expected.pieces(vcpu), strict=True):
                assert (piece.operations == same.operations).all()
                assert (piece.due_s == same.due_s).all()
        if not made or work is not made[-1]:
            made.append(work)
    assert len(made) == 2  # seeds, of 60 cells


def test_a_run_is_the_same_whoever_ran_before_it() -> None:
    """A worker that has run another design gives the same figures to the last digit."""
    cells = [Cell(make_config(TINY | {"design": design}), "simulated") for design in ("scan", "sync", "scan")]
    first, _, again = (run_job(Job(cell, read_costs(), "built in")) for cell in cells)
    assert first.outcome == "complete"
    assert first.costs == "built in"
    assert msgspec.json.encode(first.result) == msgspec.json.encode(again.result)


def test_a_run_that_raises_is_a_record_that_says_why() -> None:
    """What breaks in a worker is an outcome, with the time that it took and the versions."""
    record = run_job(Job(Cell(RunConfig(ram_bytes=1 << 60), "live")))
    assert record.failed
    assert record.result is None
    assert "Cannot allocate memory" in record.outcome
    assert record.versions.keys() >= {"pagetide", "python", "numpy", "numba", "kernel", "cpu"}
    assert lost_job(Job(record.cell), "gone").versions == record.versions


def test_a_guest_that_runs_out_of_memory_failed_but_nothing_broke() -> None:
    """It has its figures up to then, and is told from a run that broke."""
    config = make_config(TINY | {"eat-share": 0.98})
    record = run_job(Job(Cell(config, "simulated"), read_costs(), "built in"))
    assert record.failed
    assert record.result is not None
    assert run_of(record).ran_out_of_memory
    assert not run_of(msgspec.structs.replace(record, outcome="its worker was lost")).ran_out_of_memory
