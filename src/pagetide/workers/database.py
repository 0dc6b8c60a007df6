"""Where what jobs found is kept: a DuckDB file, to which one process writes, whole jobs in a transaction."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from pagetide.machine.config_error import ConfigError

Tables = Mapping[str, Mapping[str, str]]
"""Each table's columns, and their kinds."""

_ROWS_MAX = 64
"""In one statement: DuckDB takes longer to begin one than for a row of it."""


class ResultsError(ConfigError):
    """Results that cannot be had, kept or gone on with; the message is one sentence."""


def create(
    path: Path, tables: Tables, memory_limit: str, first: Mapping[str, tuple[Any, ...]] | None = None
) -> duckdb.DuckDBPyConnection:
    """Make a database as a whole, and its folder if need be.

    Args:
        path: of its file.
        tables: what is in it, empty at first.
        memory_limit: how much of it DuckDB keeps in memory, as `256MB`.
        first: a row that a table has from the start.

    Raises:
        ResultsError: there is one already, or it cannot be made.
    """
    if path.exists():
        raise ResultsError(f"{path.parent} has results already: --resume goes on with them, another --out keeps them")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(path.parent, error) from error
    database = connect(path, memory_limit)
    try:
        with transaction(database):
            for name, columns in tables.items():
                definitions = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
                database.execute(f'CREATE TABLE "{name}" ({definitions})')
            for name, row in (first or {}).items():
                insert(database, name, [row])
    except BaseException as error:
        database.close()
        path.unlink(missing_ok=True)
        if isinstance(error, duckdb.Error):
            raise not_written(path.parent, error) from error
        raise
    return database


def connect(path: Path, memory_limit: str, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a database; the processors are left to the jobs.

    Raises:
        ResultsError: it cannot be opened, or another process writes to it.
    """
    try:
        return duckdb.connect(path, read_only=read_only, config={"threads": 1, "memory_limit": memory_limit})
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException) and "lock" in str(error):
            raise ResultsError(f"another process is using {path}: wait until it is done") from error
        raise not_read(path, error) from error


def insert(database: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows to a table of ours, a value for each of its columns."""
    for first in range(0, len(rows), _ROWS_MAX):
        some = rows[first : first + _ROWS_MAX]
        places = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        values = [*itertools.chain.from_iterable(some)]
        database.execute(f'INSERT INTO "{table}" VALUES {places}', values)  # noqa: S608 - our own name


@contextmanager
def transaction(database: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Within, all is done or nothing."""
    database.begin()
    try:
        yield
    except BaseException:
        database.rollback()
        raise
    database.commit()


def not_read(path: Path, error: duckdb.Error) -> ResultsError:
    """What is raised of a database that cannot be opened or read."""
    return ResultsError(f"{path} cannot be opened: {_first_line(error)}")


def not_written(folder: Path, error: Exception) -> ResultsError:
    """What is raised where something cannot be kept."""
    why = error.strerror if isinstance(error, OSError) else _first_line(error)
    return ResultsError(f"results cannot be written to {folder}: {why}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
