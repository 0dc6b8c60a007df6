"""Databases of what jobs found: made as a whole, and changed by whole transactions."""

from pathlib import Path

import duckdb
import pytest

from pagetide.workers import database
from pagetide.workers.database import ResultsError

TABLES = {"asked": {"question": "VARCHAR"}, "jobs": {"job": "BIGINT"}}
LIMIT = "64MB"


def test_a_database_is_made_with_its_first_rows(tmp_path: Path) -> None:
    """In a folder that is made for it; a second one is refused."""
    path = tmp_path / "results" / "jobs.duckdb"
    with database.create(path, TABLES, LIMIT, {"asked": ("why",)}) as made:
        assert made.execute("SELECT * FROM asked").fetchall() == [("why",)]
        assert made.execute("SELECT * FROM jobs").fetchall() == []
    with pytest.raises(ResultsError, match="has results already: --resume"):
        database.create(path, TABLES, LIMIT)


@pytest.mark.parametrize("first", [{"asked": ("why", "and when")}, {"jobs": ("no number",)}])
def test_a_database_that_cannot_be_made_whole_is_not_made(first: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    """Nothing is left in the way of the next try."""
    path = tmp_path / "jobs.duckdb"
    with pytest.raises(ResultsError, match="results cannot be written"):
        database.create(path, TABLES, LIMIT, first)
    database.create(path, TABLES, LIMIT).close()


def interrupted(made: duckdb.DuckDBPyConnection) -> None:
    """A row, and then Ctrl-C."""
    with database.transaction(made):
        database.insert(made, "jobs", [(1,)])
        raise KeyboardInterrupt


def test_a_transaction_that_is_interrupted_keeps_nothing(tmp_path: Path) -> None:
    """Not what was done before the interruption either."""
    with database.create(tmp_path / "jobs.duckdb", TABLES, LIMIT) as made:
        with pytest.raises(duckdb.ConversionException), database.transaction(made):
            database.insert(made, "jobs", [(1,), ("no number",)])
        with pytest.raises(KeyboardInterrupt):
            interrupted(made)
        with database.transaction(made):
            database.insert(made, "jobs", [(3,)])
        assert made.execute("SELECT * FROM jobs").fetchall() == [(3,)]
