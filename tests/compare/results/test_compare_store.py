"""The store of a grid: what goes in comes out, whole runs only, and clear sentences."""

import subprocess
import sys
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest

from pagetide.compare.results.cells import Cell
from pagetide.compare.results.columns import FIGURES
from pagetide.compare.results.records import LeftOut, Record
from pagetide.compare.results.store import Store
from pagetide.machine.config import RunConfig
from pagetide.machine.result import Samples
from pagetide.workers.database import ResultsError
from tests.commands.fake_machine import result_of

CELL = Cell(RunConfig(design="cursor", faults=("stop@1:2", "ring=8"), delay_s=0.5), "simulated", 1)


def record_of(cell: Cell = CELL, **changes: object) -> Record:
    """A run in which all went well, with these fields changed."""
    fields: dict[str, object] = {
        "cell": cell,
        "outcome": "complete",
        "result": result_of(cell.config),
        "failed": False,
        "started": "2026-11-23T04:00:00Z",
        "took_s": 1.5,
        "versions": {"pagetide": "0.1.0"},
        "costs": "built in",
    }
    return Record(**(fields | changes))  # type: ignore[arg-type]


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    """Cell, figures, bursts and samples, after closing and opening the database."""
    result = result_of(CELL.config, refaulted_bytes=None)
    with Store.create(tmp_path) as store:
        store.add(record_of(result=result))
    with Store.open(tmp_path, read_only=True) as store:
        (run,) = store.runs()
        samples, bursts = store.samples(CELL.key), store.bursts(CELL.key)
    assert run.cell == CELL
    assert (run.key, run.failed, run.outcome, run.took_s) == (CELL.key, False, "complete", 1.5)
    assert (run.versions, run.costs, run.guest) == ({"pagetide": "0.1.0"}, "built in", "pagetide")
    assert run.figures == {name: getattr(result, name) for name in FIGURES}
    assert run.figures["refaulted_bytes"] is None
    assert run.skipped_bytes == {"unaligned": 0, "failed": 0}
    assert bursts == result.bursts
    for name, column in samples.items():
        assert column.dtype == np.float64
        assert column.tolist() == getattr(result.samples, name)


def test_what_was_not_told_is_not_a_number(tmp_path: Path) -> None:
    """A guest that does not tell what is reported leaves a column of NaN; a run without samples empty ones."""
    untold = msgspec.structs.replace(result_of().samples, reported_bytes=[None] * 60)
    with Store.create(tmp_path) as store:
        store.add(record_of(result=result_of(CELL.config, samples=untold)))
        other = Cell(RunConfig(), "live")
        store.add(record_of(other, result=result_of(samples=Samples(), bursts=[])))
        assert np.isnan(store.samples(CELL.key)["reported_bytes"]).all()
        assert store.samples(other.key)["t_s"].shape == (0,)
        assert store.bursts(other.key) == []


def test_runs_that_arrive_together_keep_apart(tmp_path: Path) -> None:
    """Each has its own bursts and samples, whatever the others did not tell, and one has nothing."""
    cells = [Cell(RunConfig(seed=seed), "simulated", 1) for seed in range(1, 5)]
    results = [result_of(cell.config) for cell in cells]
    results[1].samples = msgspec.structs.replace(results[1].samples, reported_bytes=[None] * 60)
    results[2].samples = msgspec.structs.replace(results[2].samples, host_resident_bytes=list(range(60)))
    kept = [record_of(cell, result=result) for cell, result in zip(cells[:3], results, strict=False)]
    with Store.create(tmp_path) as store:
        store.add(*kept, record_of(cells[3], outcome="its process was killed", failed=True, result=None))
        runs = {run.key: run for run in store.runs()}
        assert list(runs) == [cell.key for cell in cells]
        for cell, result in zip(cells[:3], results, strict=False):
            found = store.result(runs[cell.key])
            assert (found.samples, found.bursts) == (result.samples, result.bursts)
        assert store.samples(cells[3].key)["t_s"].shape == (0,)


def test_a_run_without_a_result_is_a_row_that_says_why(tmp_path: Path) -> None:
    """Its figures are None."""
    with Store.create(tmp_path) as store:
        store.add(record_of(outcome="its process was killed", failed=True, result=None))
        (run,) = store.runs()
    assert (run.failed, run.outcome, run.guest) == (True, "its process was killed", None)
    assert set(run.figures.values()) == {None}


def test_the_plan_is_kept_in_its_order(tmp_path: Path) -> None:
    """Planned cells and what was left out come back; runs are listed in the order of the plan."""
    cells = [Cell(RunConfig(seed=seed), "live", seed) for seed in (3, 1, 2)]
    with Store.create(tmp_path) as store:
        store.plan(cells, [LeftOut("balloon with oom swap", "it has none")])
        for cell in reversed(cells):
            store.add(record_of(cell))
        assert store.planned() == cells
        assert [run.cell for run in store.runs()] == cells
        assert store.left_out() == [LeftOut("balloon with oom swap", "it has none")]


def test_a_cell_is_added_once_and_whole(tmp_path: Path) -> None:
    """A second run of a key is refused, and leaves no samples beside those of the first."""
    with Store.create(tmp_path) as store:
        store.add(record_of())
        with pytest.raises(ResultsError, match="results cannot be written"):
            store.add(record_of())
        assert len(store.samples(CELL.key)["t_s"]) == 60


def test_parquet_files_have_the_same(tmp_path: Path) -> None:
    """Other programs read runs, samples and bursts from files; a second export replaces the first."""
    with Store.create(tmp_path / "it's here") as store:
        store.add(record_of())
        store.export()
        paths = store.export()
    counts = {path.name: len(duckdb.read_parquet(str(path)).fetchall()) for path in paths}
    assert counts == {"runs.parquet": 1, "samples.parquet": 60, "bursts.parquet": 1}


def test_results_are_not_overwritten(tmp_path: Path) -> None:
    """A folder that has results is refused, and so is one that has none where some are to be read."""
    with pytest.raises(ResultsError, match="there are no results in"):
        Store.open(tmp_path)
    Store.create(tmp_path).close()
    with pytest.raises(ResultsError, match="has results already: --resume"):
        Store.create(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    """A file in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"cannot be written to .*: Not a directory"):
        Store.create(tmp_path / "file" / "out")


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    """One line that names it."""
    (tmp_path / "results.duckdb").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ResultsError, match=r"results\.duckdb cannot be opened") as caught:
        Store.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_versions_results_can_be_read_and_not_added_to(tmp_path: Path) -> None:
    """A figure that was not known then is missing; a column of another kind that is missing is an error."""
    with Store.create(tmp_path) as store:
        store.add(record_of())
    with duckdb.connect(str(tmp_path / "results.duckdb")) as database:
        database.execute("ALTER TABLE runs DROP COLUMN false_ooms")
        database.execute("ALTER TABLE samples DROP COLUMN refaulted_bytes")
    with Store.open(tmp_path, read_only=True) as store:
        (run,) = store.runs()
        assert "false_ooms" not in run.figures
        assert store.result(run).samples.refaulted_bytes == [None] * 60
    with pytest.raises(ResultsError, match="another version's"):
        Store.open(tmp_path)
    with duckdb.connect(str(tmp_path / "results.duckdb")) as database:
        database.execute("ALTER TABLE runs DROP COLUMN outcome")
    with pytest.raises(ResultsError, match="another version's"):
        Store.open(tmp_path, read_only=True)


def test_two_processes_cannot_both_write(tmp_path: Path) -> None:
    """A second process is told that the first one is at work."""
    script = (
        "import sys; from pathlib import Path; from pagetide.compare.results.store import Store\n"
        "from pagetide.workers.database import ResultsError\n"
        "try: Store.open(Path(sys.argv[1]))\n"
        "except ResultsError as error: print(error)"
    )
    with Store.create(tmp_path):
        found = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True
        )
    assert found.stdout.startswith("another process is using")
