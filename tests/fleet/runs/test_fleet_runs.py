"""A fleet as jobs: the same bytes whoever does them, kept when they are interrupted, and gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from pagetide import cli
from pagetide.commands.fleet import hosts
from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.guests.response import ALL_RETURNS, NOTHING_RETURNS
from pagetide.fleet.hosts.cluster import Cluster, Question, cluster
from pagetide.fleet.hosts.host import Host
from pagetide.fleet.hosts.placing.registry import Plan
from pagetide.fleet.learning.chosen import choose
from pagetide.fleet.learning.responses import read_responses
from pagetide.fleet.runs import jobs
from pagetide.fleet.runs.jobs import Carried, Done, Job, cut, run_job
from pagetide.fleet.runs.kept import keep
from pagetide.fleet.runs.store import DATABASE, TABLES, Results
from pagetide.fleet.runs.summary import LOW_HIGH, Asked, SettingSummary, summary
from pagetide.fleet.usage.canonical import Grid, Usage
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.machine.costs import read_costs
from pagetide.units import GIB
from tests.commands.grids.dask_cluster import DaskCluster
from tests.fleet.runs.small_fleet import COMMAND, JOBS, SETTINGS, bytes_of, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run without interruption, in one process."""
    folder = tmp_path_factory.mktemp("fleet") / "whole"
    assert run(folder) == 0
    return folder


def jobs_in(folder: Path) -> int:
    """How many jobs a folder has."""
    with duckdb.connect(folder / DATABASE, read_only=True) as database:
        ((count,),) = database.execute("SELECT count(*) FROM jobs").fetchall()
    return int(count)


def test_tables_and_summary_say_the_same(whole: Path) -> None:
    """Parquet by DuckDB against the JSON: VMs, hosts, what is held on average, and hours of pressure."""
    found = json.loads((whole / "summary.json").read_bytes())
    assert jobs_in(whole) == JOBS
    assert (found["vms"], found["vm_days"], len(found["settings"])) == (24, 48.0, SETTINGS)
    for setting in found["settings"]:
        query = f"SELECT avg(held_bytes), max(held_bytes) FROM '{whole}/held.parquet' WHERE setting = ?"
        ((mean, most),) = duckdb.execute(query, [setting["name"]]).fetchall()
        assert (mean, most) == (pytest.approx(setting["mean_bytes"], rel=1e-6), setting["most_bytes"])
        assert (found["placed"], found["unknown_share"]) == (24, 0)
        low, high = setting["mean_between_bytes"]
        assert low < high
        if setting["reports_cpu_s"] is not None:
            low_s, high_s = setting["cpu_between_s"]
            assert 0 < low_s < high_s < 10 * (setting["reports_cpu_s"] + setting["refaults_cpu_s"])
        for plan in setting["plans"]:
            query = f"SELECT * FROM '{whole}/plans.parquet' WHERE setting = ? AND plan = ? ORDER BY draw"
            rows = duckdb.execute(query, [setting["name"], plan["plan"]]).fetchnumpy()
            assert rows["draw"].tolist() == [0, 1, 2, 3]
            assert plan["vms_a_host"]["value"] == 24 / rows["hosts"][0]
            assert plan["pressed_h"]["value"] == pytest.approx(720 * rows["pressed_steps"][0] / rows["host_steps"][0])


def test_what_is_said_of_the_densest_plan_is_of_that_plan_in_every_draw(whole: Path) -> None:
    """Not of the best plan of each draw: its own percentiles, and in which share it is within the risk."""
    found = json.loads((whole / "summary.json").read_bytes())
    densities = []
    for setting in found["settings"]:
        query = f"SELECT * FROM '{whole}/plans.parquet' WHERE setting = ? AND plan = ? AND draw > 0 ORDER BY draw"
        rows = duckdb.execute(query, [setting["name"], setting["densest"]]).fetchnumpy()
        densities.append(rows["vms"] / rows["hosts"])
        assert setting["density"]["between"] == pytest.approx(np.percentile(densities[-1], LOW_HIGH))
        within = 720 * rows["pressed_steps"] / rows["host_steps"] <= found["risk_h"]
        assert setting["within_share"] == within.mean()
        if setting is not found["settings"][0]:
            assert setting["denser_share"] == (densities[-1] > densities[0]).mean()
    assert any(0 < setting["within_share"] < 1 for setting in found["settings"])


def test_without_draws_nothing_is_said_of_other_vms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No interval in the JSON, and none in text and report, which say that there is none."""
    command = COMMAND.replace("--draws 3", "--draws 0")
    assert cli.main([*command.split(), "--out", str(tmp_path / "undrawn")]) == 0
    found = json.loads((tmp_path / "undrawn" / "summary.json").read_bytes())
    for setting in found["settings"]:
        assert {setting[name] for name in ("mean_between_bytes", "within_share", "denser_share")} == {None}
        assert {plan[name]["between"] for plan in setting["plans"] for name in ("vms_a_host", "pressed_h")} == {None}
    assert "No VMs were drawn anew" in capsys.readouterr().out
    report = (tmp_path / "undrawn" / "report.html").read_text()
    assert "No VMs were drawn anew" in report
    assert "<small>" not in report
    assert "percentiles" not in report


def test_cpu_time_of_a_draw_is_for_its_own_vms_and_days(tmp_path: Path) -> None:
    """Of two VMs one is known for a tenth of the time: what draws take for a VM and day lies between theirs."""
    breathing = np.tile(np.array([6 * GIB, GIB], np.float32), 48)
    valid = np.ones((2, 96), np.bool_)
    valid[1, 10:] = False
    columns = (np.where(valid, np.float32(8 * GIB), 0), np.where(valid, np.stack([breathing, breathing / 2]), 0), valid)
    usage = Usage(Grid(0, 3600, 96), ("a", "b"), *columns)
    mixtures = [Mixture.of(NOTHING_RETURNS), choose(read_responses(), ["linux-9"])[0].mixture, Mixture.of(ALL_RETURNS)]
    asked = [Asked(one.name, ("linux-9",) if one is mixtures[1] else ()) for one in mixtures]

    def cpu_of_these(first: int, end: int, draws: int) -> SettingSummary:
        folder = tmp_path / f"{first}-{end}"
        folder.mkdir()
        kept, _ = keep(Carried(usage), folder, lambda more: None)
        question = Question((Plan("reservation"),), Host(64 * GIB, 0, 0), "swap", draws, 1)
        with Results.create(folder, "asked") as results:
            for job in cut(kept.part(first, end), mixtures, question):
                results.add(run_job(job))
            return summary(results, usage.grid, asked, 1.0, read_costs()).settings[1]

    alone = [cpu_of_these(first, first + 1, 0) for first in (0, 1)]
    own_s = sorted((one.reports_cpu_s or 0.0) + (one.refaults_cpu_s or 0.0) for one in alone)
    between_s = cpu_of_these(0, 2, 30).cpu_between_s
    assert between_s is not None
    assert 0 < own_s[0] - 1e-9 <= between_s[0] <= between_s[1] <= own_s[1] + 1e-9


def test_a_mixture_costs_what_its_parts_do(tmp_path: Path) -> None:
    """Each VM by the setting that it has: what comes back and what it takes are the sums over the VMs of each part."""
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    assert run(alone, "--settings off,linux-0") == 0
    assert run(mixed, "--settings off:0.5+linux-0:0.5") == 0
    off, reporting, both = (
        one
        for folder in (alone, mixed)
        for one in json.loads((folder / "summary.json").read_bytes())["settings"]
        if one["name"] in ("off, last", "linux-0, last", "off:0.5+linux-0:0.5, last")
    )
    assert off["reports_cpu_s"] == 0 < both["reports_cpu_s"] < reporting["reports_cpu_s"]
    assert reporting["mean_bytes"] < both["mean_bytes"] < off["mean_bytes"]
    share = both["returned_bytes"] / reporting["returned_bytes"]
    assert both["reports_cpu_s"] / reporting["reports_cpu_s"] == pytest.approx(share)


def test_half_done_work_is_gone_on_with_to_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """As if the last jobs had never been; what is asked otherwise is refused."""
    folder = tmp_path / "half"
    shutil.copytree(whole, folder)
    with duckdb.connect(folder / DATABASE) as database:
        for table in TABLES.keys() - {"asked"}:
            database.execute(f"DELETE FROM {table} WHERE job >= 5")
    assert run(folder, "--resume") == 0
    assert bytes_of(folder) == bytes_of(whole)


def test_what_is_there_is_neither_mixed_nor_lost(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another question does not go on with it, a new run does not write over it, and nothing is not gone on with."""
    for folder, more, sentence in (
        (whole, "--resume --seed 7", "are of another fleet, question or version"),
        (whole, "", "has results already: --resume goes on with them"),
        (tmp_path, "--resume", "there is nothing to go on with"),
    ):
        assert run(folder, more) == 1
        assert sentence in capsys.readouterr().err


def test_which_part_of_a_mixture_each_vm_has_is_kept(tmp_path: Path) -> None:
    """By the name of its setting, in each cluster as many as the share says."""
    assert run(tmp_path, "--settings off:0.25+linux-9:0.75") == 0
    with duckdb.connect() as database:
        found = database.execute(
            f"SELECT part, count(*) FROM '{tmp_path / 'vms.parquet'}' WHERE setting LIKE 'off:%' GROUP BY part"
        ).fetchall()
    assert sorted(found) == [
        ("linux-9, anywhere", 18), ("linux-9, last", 18), ("off, anywhere", 6), ("off, last", 6),
    ]  # fmt: skip


def test_what_was_not_begun_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty database, one with some of its tables, or with no question: a sentence that says what to do."""
    tables = [f"CREATE TABLE {name} ({', '.join(map(' '.join, TABLES[name].items()))})" for name in TABLES]
    for number, statements in enumerate(([], tables[:2], tables)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with duckdb.connect(folder / DATABASE) as database:
            for statement in statements:
                database.execute(statement)
        assert run(folder, "--resume") == 1
        assert f"nothing was begun in {folder / DATABASE}: delete it" in capsys.readouterr().err


def test_what_is_damaged_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that opens, and has lost what was asked: a sentence."""
    path, question = tmp_path / DATABASE, "x" * 10_000
    with duckdb.connect(path) as database:
        for name in TABLES:
            database.execute(f"CREATE TABLE {name} ({', '.join(map(' '.join, TABLES[name].items()))})")
        database.execute("INSERT INTO asked VALUES (?)", [question])
    whole = path.read_bytes()
    assert question.encode() in whole
    path.write_bytes(whole.replace(question.encode(), b"y" + question[1:].encode()))
    assert run(tmp_path, "--resume") == 1
    assert f"{path} cannot be opened: " in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence before anything is made, so that the next try finds no results in its way."""
    assert run(tmp_path / "none", "--cluster somewhere") == 2
    assert "a Dask scheduler has an address such as" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_ctrl_c_keeps_what_is_done(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 130, and the line that goes on; that comes to the same bytes."""

    def interrupted(job: Job) -> Done:
        if job.number == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return run_job(job)

    monkeypatch.setattr(hosts, "run_job", interrupted)
    folder = tmp_path / "interrupted"
    assert run(folder) == 130
    assert f"the same command with --resume --out {folder} goes on" in capsys.readouterr().err
    assert 0 < jobs_in(folder) < JOBS
    monkeypatch.undo()
    assert run(folder, "--resume") == 0
    assert bytes_of(folder) == bytes_of(whole)


def test_a_job_that_fails_is_a_sentence_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the others, which are kept; it is tried once, and no worker is said to be lost."""
    seen = list[int]()

    def failing(usage: Usage, mixture: Mixture, question: Question, number: int) -> Cluster:
        seen.append(number)
        if len(seen) == 3:
            raise MemoryError("no room")
        return cluster(usage, mixture, question, number)

    monkeypatch.setattr(jobs, "cluster", failing)
    assert run(tmp_path / "failing") == 1
    assert "VMs 0 to 7, linux-9, anywhere: MemoryError: no room" in capsys.readouterr().err
    assert len(seen) == JOBS
    assert jobs_in(tmp_path / "failing") == JOBS - 1


def test_usage_that_is_kept_is_read_as_it_was(tmp_path: Path) -> None:
    """Whole, in parts, and drawn: every VM that is drawn is one of these, and the seed decides which."""
    source = MadeUp(9, 1, 3)
    kept, _ = keep(source, tmp_path, lambda more: None)
    expected, _ = source.read(0, 9)
    for found in (kept.read(0, 9)[0], source.part(0, 9).read(0, 9)[0]):
        assert (found.used_bytes == expected.used_bytes).all()
        assert found.vms == expected.vms
    for part in (kept.part(4, 6), source.part(4, 6)):
        assert (part.read(0, 2)[0].used_bytes == expected.used_bytes[4:6]).all()
        assert part.vms == ("4", "5")
    many = kept.drawn(100, 1)
    rows = [int(vm) for vm in many.read(40, 60)[0].vms]
    assert (many.read(40, 60)[0].used_bytes == expected.used_bytes[rows]).all()
    assert set(many.vms) == set(expected.vms)
    assert (kept.drawn(100, 1).numbers == many.numbers).all()
    assert (kept.drawn(100, 2).numbers != many.numbers).any()


def test_long_usage_is_cut_into_smaller_clusters() -> None:
    """However many steps there are, a job's arrays have a bound: a year's cluster is a tenth of a month's."""
    question = Question((), Host(1, 0, 0), "swap", 0, 1)
    for days, largest in ((30, jobs.CLUSTER_VMS), (365, 49), (3650, 4)):
        parts = list(cut(MadeUp(1200, days, 1), [Mixture.of(ALL_RETURNS)], question))
        assert np.concatenate([np.arange(job.first, job.end) for job in parts]).tolist() == list(range(1200))
        assert max(job.end - job.first for job in parts) == largest


def run_apart(folder: Path, *arguments: str) -> None:
    """Run the fleet as a program of its own, whose processes end with it."""
    command = [sys.executable, "-m", "tests.fleet.runs.small_fleet", str(folder), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_processes_leave_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """Two of them, as one."""
    run_apart(tmp_path / "two", "--workers 2")
    assert bytes_of(tmp_path / "two") == bytes_of(whole)


@pytest.mark.slow
def test_a_cluster_of_which_a_worker_is_killed_leaves_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """A real scheduler with two workers, one of them killed once a job is done."""
    with DaskCluster(tmp_path) as cluster:
        victim, _ = cluster.workers
        run_apart(tmp_path / "cluster", f"--cluster {cluster.address}", str(victim.pid))
        assert cluster.log("scheduler").count("Remove worker") == 1
    assert bytes_of(tmp_path / "cluster") == bytes_of(whole)
