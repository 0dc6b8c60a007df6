"""`pagetide compare`, `report` and `show` as commands."""

import csv
import io
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from pagetide import cli
from pagetide.commands import compare as compare_command
from pagetide.commands.compare import Manner, compare
from pagetide.compare.grid.axes import Choice
from pagetide.compare.grid.worker import Job
from pagetide.compare.report.tables import write_csv_folder
from pagetide.compare.results.columns import FIGURES
from pagetide.compare.results.records import Record, Run
from pagetide.compare.results.store import Store
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import read_costs
from pagetide.machine.versions import versions
from pagetide.workers.pools import ExecutorPool
from tests.cli.refusal import assert_refused
from tests.compare.grid.inline_executor import InlineExecutor
from tests.compare.results.test_compare_store import record_of

MIB = 1 << 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--designs best", "there is no design 'best'"),
        ("--workloads burst,idle", "there is no workload 'idle'"),
        ("--faults stopp", "'stopp' is no fault"),
        ("--oom hope", "there is no answer to OOM 'hope'"),
        ("--repeat 0", "from 1 to 1000 repeats"),
        ("--repeat 1.5", "'1.5' is not a whole number"),
        ("--ram much", "'much' is not a size"),
        ("--ram 100TiB --machine live", "larger than this machine's"),
        ("--machine virtual", "--machine"),
        ("--jobs 0", "from 1 to 256 jobs, not 0"),
        ("--jobs 2 --machine live", "they go one at a time: --jobs 1"),
        ("--cluster tcp://x:1 --machine live", "cannot be run on a cluster"),
        ("--cluster tcp://x:1 --jobs 2", "--jobs is for processes of this machine"),
        ("--costs c.json --machine live", "--costs goes with --machine simulated"),
        ("--costs /nowhere.json", "the costs /nowhere.json cannot be read"),
        ("--config /nowhere.toml", "cannot be read"),
        ("--resume", "--resume needs --out"),
        ("--resume --out /nowhere", "there are no results in /nowhere"),
        ("stray", "stray"),
    ],
)
def test_bad_arguments_are_one_sentence_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    sentence: str,
) -> None:
    """One line on standard error, nothing is run, and no folder is made."""
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, ["compare", *arguments.split()], sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compare", "report", "show"])
def test_help_explains_every_option_and_status(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Each option has a sentence, and there are examples."""
    assert cli.main([command, "--help"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"Examples: pagetide {command}" in text
    assert "Exit status: 0" in text
    for option in re.findall(r"(--[a-z-]+)(?: STR| INT| FLOAT)?: (\S)", text):
        assert option[1] not in "[-"


def run_of(record: Record) -> Run:
    """A record as it is read again."""
    with TemporaryDirectory() as folder, Store.create(Path(folder)) as store:
        store.add(record)
        return store.runs()[0]


def _pool_of(outcomes: dict[int, str], seen: list[Job]) -> ExecutorPool[Job, Record]:
    """Workers that run nothing: a run of a seed that is given fails so."""

    def run(job: Job) -> Record:
        seen.append(job)
        seed = job.cell.config.seed
        if seed in outcomes:
            return record_of(job.cell, outcome=outcomes[seed], failed=True, result=None, versions=versions())
        return record_of(job.cell, versions=versions(), costs=job.costs_name)

    return ExecutorPool(InlineExecutor, 2, run=run)


CHOICE = Choice(designs=("scan", "cursor"), workloads=("burst",), oom=("wait", "swap"), faults=("none",))
"""Two designs, two answers to OOM and three seeds."""

MISFITS = Choice(designs=("scan", "balloon"), workloads=("burst",), oom=("wait", "swap"), machine="live")
"""Of these some are left out: nothing swaps with a balloon."""


def test_what_is_left_out_and_what_failed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that failed is status 1, a row that says why, and a command that replays it with its seed."""
    seen: list[Job] = []
    folder = tmp_path / "out"
    assert compare(MISFITS, Manner(out=folder), make_pool=lambda jobs: _pool_of({2: "it broke"}, seen)) == 1
    out, err = capsys.readouterr()
    assert "left out: " in err
    assert "oom must be wait" in err
    assert f"results go to {folder}" in err
    assert "failed: it broke" in err
    assert re.search(r"replay: pagetide run .*--seed 2", err)
    assert f"{len(seen)} runs in {folder}, " in out
    with Store.open(folder, read_only=True) as store:
        runs = store.runs()
        assert {one.what for one in store.left_out()} >= {"balloon on burst, fault none, oom swap"}
    assert {run.key for run in runs} == {job.cell.key for job in seen}
    assert all(run.failed == (run.cell.config.seed == 2) for run in runs)


def test_one_run_at_a_time_is_always_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is for a run, but not for what its worker may keep beside it, there is one worker and not none."""
    monkeypatch.setattr(compare_command, "available_bytes", lambda: 1)
    asked: list[int] = []

    def make_pool(jobs: int) -> ExecutorPool[Job, Record]:
        asked.append(jobs)
        return _pool_of({}, [])

    assert compare(CHOICE, Manner(out=tmp_path / "out"), make_pool=make_pool) == 0
    assert asked == [1]


def test_guests_that_ran_out_of_memory_are_counted_and_are_no_failure_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 0: what a design does to its guest is a measurement."""
    outcome = "the guest stopped: it ran out of memory: its workload needs more than it has"
    folder = tmp_path / "out"
    assert compare(CHOICE, Manner(out=folder), make_pool=lambda jobs: _pool_of({2: outcome}, [])) == 0
    out, err = capsys.readouterr()
    assert "12 runs in" in out
    assert ", 4 failed" in out
    assert "guests that ran out of memory: scan on burst (2), cursor on burst (2)" in err


def test_all_well_is_status_0_and_results_are_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second grid into the same folder is refused, whatever it is."""
    folder = tmp_path / "out"
    assert compare(CHOICE, Manner(out=folder), make_pool=lambda jobs: _pool_of({}, [])) == 0
    capsys.readouterr()
    assert cli.main(["compare", "--out", str(folder)]) == 2
    assert "has results already: --resume goes on with them" in capsys.readouterr().err


def test_resume_refuses_another_grid_other_versions_and_other_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would not compare is not put together; the same options again are taken."""
    folder = tmp_path / "out"

    def again(choice: Choice | None, costs: Path | None = None) -> int:
        manner = Manner(out=folder, resume=True, costs=costs)
        return compare(choice, manner, make_pool=lambda jobs: _pool_of({}, []))

    assert compare(CHOICE, Manner(out=folder), make_pool=lambda jobs: _pool_of({}, [])) == 0
    assert again(None) == again(CHOICE) == 0
    with pytest.raises(ConfigError, match="has another grid: --resume needs none of its options"):
        again(Choice(designs=("scan",), faults=("none",)))
    costs = read_costs()
    path = tmp_path / "other.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(costs, cpus=costs.cpus + 1)))
    with pytest.raises(ConfigError, match=r"are of the costs [0-9a-f]{12} .*, these are [0-9a-f]{12} .*other\.json"):
        again(None, path)
    monkeypatch.setattr(compare_command, "versions", lambda: versions() | {"numpy": "9.9"})
    with pytest.raises(ConfigError, match=r"are of numpy .*, this is 9\.9, and would not compare"):
        again(None)


def test_the_folder_is_named_after_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --out; a second one in the same minute gets a number."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert compare(CHOICE, Manner(), make_pool=lambda jobs: _pool_of({}, [])) == 0
    first, second = sorted(path.name for path in tmp_path.iterdir())
    assert re.fullmatch(r"compare-\d{8}-\d{4}", first)
    assert re.fullmatch(r"compare-\d{8}-\d{4}(-2)?", second)


def test_json_has_every_run_and_medians_over_those_that_did_not_fail(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Medians with the least and the most; a run that failed is in the runs, and in no median."""
    assert cli.main(["report", str(folder), "--json", "-"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert tables["planned"] == len(tables["runs"]) == 6
    assert tables["left_out"] == [{"what": "balloon", "why": "it does not fit"}]
    assert [run["outcome"] for run in tables["runs"]] == ["complete"] * 4 + ["the host stopped", "its worker was lost"]
    off, scan = tables["configurations"]
    assert (off["design"], off["runs"], off["failed"]) == ("off", 3, 0)
    assert [off[f"mean_resident_bytes{end}"] for end in ("", "_min", "_max")] == [11 * MIB, 10 * MIB, 12 * MIB]
    assert (scan["design"], scan["runs"], scan["failed"]) == ("scan", 3, 2)
    assert [scan[f"mean_resident_bytes{end}"] for end in ("", "_min", "_max")] == [13 * MIB] * 3
    assert set(FIGURES) <= set(scan)


def test_csv_is_a_folder_of_tables_or_the_runs_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has a line of names and a row for each entry."""
    assert cli.main(["report", str(folder), "--csv", str(tmp_path / "tables")]) == 0
    lines = {path.name: len(path.read_text().splitlines()) for path in (tmp_path / "tables").iterdir()}
    assert lines == {"runs.csv": 7, "configurations.csv": 3, "bursts.csv": 6, "samples.csv": 5 * 60 + 1}
    assert cli.main(["report", str(folder), "--csv", str(tmp_path / "runs.csv")]) == 0
    assert (tmp_path / "runs.csv").read_text() == (tmp_path / "tables" / "runs.csv").read_text()
    assert cli.main(["report", str(folder), "--csv", "-"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["seed"] for row in rows] == ["1", "2", "3"] * 2
    assert rows[5]["mean_resident_bytes"] == ""


def test_a_report_of_nothing_or_to_nowhere_is_a_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2 without results, 1 for a file that cannot be written."""
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "there are no results in" in capsys.readouterr().err
    assert cli.main(["report", str(folder), "--json", "/nowhere/tables.json"]) == 1
    assert "/nowhere/tables.json cannot be written: No such file or directory" in capsys.readouterr().err


def test_tables_of_a_grid_without_a_run_have_their_headings(tmp_path: Path) -> None:
    """Whoever reads them finds the columns, and no row."""
    with Store.create(tmp_path / "empty") as store:
        write_csv_folder(store, tmp_path / "tables")
    for name, first in {"runs": "key", "configurations": "machine", "bursts": "key", "samples": "key"}.items():
        (heading,) = (tmp_path / "tables" / f"{name}.csv").read_text().splitlines()
        assert heading.startswith(f"{first},")
        assert heading.count(",") >= 5


def test_a_table_that_does_not_fit_on_the_disk_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every way out says which file it was."""
    for option in ("--json", "--markdown"):
        assert cli.main(["report", str(folder), option, "/dev/full"]) == 1
        assert capsys.readouterr().err == "pagetide: /dev/full cannot be written: No space left on device\n"
    assert cli.main(["report", str(folder), "--csv", "/dev/full"]) == 2
    assert "/dev/full is no folder for the tables" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["foo", "", "tcp://", "tcp://host", "a b:8786", "tcp://x:99999999", "tcp://x:port"])
def test_what_is_no_address_of_a_cluster_is_a_sentence(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dask's client is not asked: it would fail at length. No folder is made."""
    out = tmp_path / "out"
    assert cli.main(["compare", "--designs", "off", f"--cluster={address}", "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err == f"pagetide: a Dask scheduler has an address such as tcp://10.0.0.1:8786, not {address!r}\n"
    assert not out.exists()
