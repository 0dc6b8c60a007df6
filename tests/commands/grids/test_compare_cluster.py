"""A grid on a Dask cluster, with a real scheduler and two real workers."""

import subprocess
import sys
from pathlib import Path

import pytest

from pagetide import cli
from tests.commands.grids.compare_process import RUNS, WAIT_MAX_S, CompareProcess, runs_of
from tests.commands.grids.dask_cluster import DaskCluster

pytestmark = pytest.mark.slow


def test_a_worker_of_the_cluster_that_is_killed_costs_no_cell(tmp_path: Path) -> None:
    """SIGKILL to one of two workers while the grid runs: every cell is done exactly once, the rest by the other one."""
    folder = tmp_path / "results"
    with DaskCluster(tmp_path) as cluster, CompareProcess(folder, "--cluster", cluster.address) as grid:
        victim, survivor = cluster.workers
        grid.await_first_run()
        idle_s = survivor.cpu_times().user
        victim.kill()
        assert grid.status() == 0
        assert survivor.cpu_times().user > idle_s
        log = cluster.log("scheduler")
    assert log.count("Register worker") == 2
    assert log.count("Remove worker") == 1
    runs = runs_of(folder)
    assert len(runs) == RUNS
    assert not any(run.failed for run in runs)


def test_ctrl_c_leaves_the_cluster_idle_and_another_grid_can_use_it(tmp_path: Path) -> None:
    """What was done is kept, and the same cluster does the rest."""
    folder = tmp_path / "results"
    with DaskCluster(tmp_path) as cluster:
        with CompareProcess(folder, "--cluster", cluster.address) as grid:
            grid.await_first_run()
            grid.interrupt()
            assert grid.status() == 130
        assert 0 < len(runs_of(folder)) < RUNS
        assert f"--resume --out {folder} --cluster {cluster.address}" in grid.output
        with CompareProcess(folder, "--resume", "--cluster", cluster.address) as grid:
            assert grid.status() == 0
    assert len(runs_of(folder)) == RUNS


def test_a_cluster_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    """Status 2, before anything is written."""
    command = [sys.executable, "-m", "pagetide.cli", "compare", "--quick", "--out", str(tmp_path / "results")]
    ended = subprocess.run(
        [*command, "--cluster", "tcp://127.0.0.1:1"], capture_output=True, text=True, check=False, timeout=WAIT_MAX_S
    )
    assert ended.returncode == 2
    assert "pagetide: no Dask scheduler answers at tcp://127.0.0.1:1" in ended.stderr
    assert not (tmp_path / "results").exists()


def test_without_distributed_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(["compare", "--quick", "--out", str(tmp_path / "results"), "--cluster", "tcp://nowhere:1"]) == 2
    assert (
        "--cluster needs distributed; in pagetide's source folder: pip install '.[cluster]'" in capsys.readouterr().err
    )
    assert not (tmp_path / "results").exists()
