"""A grid on real processes: Ctrl-C, resuming, and processes that are killed while they work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pagetide.compare.results.store import EXPORTED
from tests.commands.grids.compare_process import LIVE_SETTINGS, RUNS, WAIT_MAX_S, CompareProcess, runs_of
from tests.commands.grids.poisoned_grid import KILLS

pytestmark = pytest.mark.slow


def test_ctrl_c_keeps_what_is_done_and_resume_does_the_rest(tmp_path: Path) -> None:
    """Status 130, whole runs and Parquet files at once; then each other cell once, and nothing again."""
    folder = tmp_path / "results"
    with CompareProcess(folder, "--jobs", "2") as grid:
        grid.await_first_run()
        grid.end_by_ctrl_c()
    before = runs_of(folder)
    assert 0 < len(before) < RUNS
    assert not any(run.failed for run in before)
    assert all((folder / f"{name}.parquet").stat().st_size > 0 for name in EXPORTED)
    assert f"{RUNS - len(before)} runs are left: pagetide compare --resume --out {folder} --jobs 2" in grid.output
    assert "Traceback" not in grid.output
    with CompareProcess(folder, "--resume") as grid:
        assert grid.status() == 0
    after = runs_of(folder)
    assert len(after) == RUNS
    started = {run.key: run.started for run in after}
    assert {run.key: started[run.key] for run in before} == {run.key: run.started for run in before}
    with CompareProcess(folder, "--resume") as grid:
        assert grid.status() == 0
    assert "0 runs to do" in grid.output
    assert {run.key: run.started for run in runs_of(folder)} == started


def test_a_worker_that_is_killed_costs_no_cell(tmp_path: Path) -> None:
    """SIGKILL to a worker of the pool: what was in flight is tried again, and every cell is done exactly once."""
    folder = tmp_path / "results"
    with CompareProcess(folder, "--jobs", "2") as grid:
        grid.await_first_run()
        for worker in list(grid.workers)[:1]:
            worker.kill()
        assert grid.status() == 0
        grid.await_workers_end()
    assert "a worker was lost: what was in flight is tried again" in grid.output
    runs = runs_of(folder)
    assert len(runs) == RUNS
    assert not any(run.failed for run in runs)


def test_a_killed_grid_leaves_whole_runs_and_no_worker(tmp_path: Path) -> None:
    """SIGKILL to `pagetide compare` itself: its workers end, and --resume goes on from the last run that was kept."""
    folder = tmp_path / "results"
    with CompareProcess(folder, "--jobs", "2") as grid:
        grid.await_first_run()
        grid.process.kill()
        grid.status()
        grid.await_workers_end()
    before = {run.key: run.started for run in runs_of(folder)}
    assert 0 < len(before) < RUNS
    with CompareProcess(folder, "--resume", "--jobs", "2") as grid:
        assert grid.status() == 0
    after = {run.key: run.started for run in runs_of(folder)}
    assert len(after) == RUNS
    assert {key: after[key] for key in before} == before


def test_ctrl_c_ends_a_live_grid_with_its_guests(tmp_path: Path) -> None:
    """Runs that are done are kept; the one under way ends with all of its processes, and is not."""
    folder = tmp_path / "results"
    with CompareProcess(folder, "--machine", "live", settings=LIVE_SETTINGS) as grid:
        grid.await_first_run()
        grid.await_live_guest()
        grid.end_by_ctrl_c()
    runs = runs_of(folder)
    assert 0 < len(runs) < RUNS
    assert {(run.cell.machine, run.outcome, run.costs) for run in runs} == {("live", "complete", "")}


def test_a_cell_that_kills_its_worker_is_found_out(tmp_path: Path) -> None:
    """Of the cells in flight with it none fails but itself; one that does so once only is done the second time."""
    command = [sys.executable, "-m", "tests.commands.grids.poisoned_grid", str(tmp_path)]
    found = subprocess.run(command, check=True, capture_output=True, timeout=WAIT_MAX_S)
    said = json.loads(found.stdout)
    outcomes = dict(said["outcomes"])
    assert len(said["outcomes"]) == len(outcomes) == 10
    lost = {seed for seed, outcome in outcomes.items() if outcome.startswith("its worker was lost, twice: ")}
    assert lost == {KILLS}
    assert said["workers"] > 2
