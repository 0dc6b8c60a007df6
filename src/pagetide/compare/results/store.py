"""What a grid measured: `results.duckdb` in a folder, with one row a run, and Parquet files of the same beside it.

One process writes, whole runs a transaction, so that whatever ends it leaves whole runs.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.compare.results.cells import Cell, MachineName, condition_of
from pagetide.compare.results.columns import BURST_COLUMNS, FIGURES, RUN_COLUMNS, SAMPLE_COLUMNS, TABLES
from pagetide.compare.results.records import LeftOut, Record, Run
from pagetide.machine.config import RunConfig
from pagetide.machine.result import Burst, RunResult, Samples
from pagetide.workers import database
from pagetide.workers.database import ResultsError

DATABASE = "results.duckdb"
"""The database's name in its folder."""

EXPORTED = ("runs", "samples", "bursts")
"""Tables that are written as Parquet files, each as its name with `.parquet`."""

_MEMORY_LIMIT = "256MB"
_Column = npt.NDArray[np.float64]


class Store:
    """The results in one folder. Close it, or use it in a `with` statement."""

    def __init__(self, folder: Path, opened: duckdb.DuckDBPyConnection) -> None:
        """Take an open database; `create` and `open` make one."""
        self.folder = folder
        self._database = opened

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make the folder if need be, and an empty database in it.

        Raises:
            ResultsError: there are results already, or it cannot be made.
        """
        return cls(folder, database.create(folder / DATABASE, TABLES, _MEMORY_LIMIT))

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Open the results in a folder, to read or to add to them.

        Raises:
            ResultsError: there are none, another process adds to them, or this version cannot read or add to them.
        """
        path = folder / DATABASE
        if not path.is_file():
            raise ResultsError(
                f"there are no results in {folder}: it has no {DATABASE}, which `pagetide compare` makes"
            )
        store = cls(folder, database.connect(path, _MEMORY_LIMIT, read_only=read_only))
        try:
            store._check_columns(exactly=not read_only)
        except BaseException:
            store.close()
            raise
        return store

    def _check_columns(self, *, exactly: bool) -> None:
        """A newer version may read what an older one wrote, but not add to it."""
        found = self._rows("SELECT table_name, column_name FROM information_schema.columns")
        for name, columns in TABLES.items():
            there = {column for table, column in found if table == name}
            needed = set(columns) if exactly else set(columns) - set(FIGURES)
            if needed - there or (exactly and there - needed):
                raise ResultsError(f"the results in {self.folder} are another version's: start anew with another --out")

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, cells: Iterable[Cell], left_out: Iterable[LeftOut]) -> None:
        """Keep which cells the grid has, and what was left out of it."""
        planned = [(cell.key, cell.machine, cell.repeat, _json(cell.config)) for cell in cells]
        with database.transaction(self._database):
            database.insert(self._database, "planned", planned)
            database.insert(self._database, "left_out", [tuple(one) for one in left_out])

    def planned(self) -> list[Cell]:
        """The cells of the grid, done or not, in their order."""
        rows = self._rows("SELECT config, machine, repeat FROM planned ORDER BY rowid")
        return [self._cell(*row) for row in rows]

    def left_out(self) -> list[LeftOut]:
        """What was left out of the grid, and why."""
        return [LeftOut(*row) for row in self._rows("SELECT what, why FROM left_out ORDER BY rowid")]

    def add(self, *records: Record) -> None:
        """Keep what became of some cells: all of it, or nothing if this is interrupted.

        Raises:
            ResultsError: it cannot be written.
        """
        bursts = [
            (record.cell.key, number, *msgspec.structs.astuple(one))
            for record in records
            if record.result is not None
            for number, one in enumerate(record.result.bursts)
        ]
        try:
            with database.transaction(self._database):
                database.insert(self._database, "runs", [_run_row(record) for record in records])
                database.insert(self._database, "bursts", bursts)
                for told, alike in itertools.groupby(filter(_has_samples, records), _told_columns):
                    self._insert_samples(told, list(alike))
        except duckdb.Error as error:
            raise database.not_written(self.folder, error) from error

    def _insert_samples(self, told: Sequence[str], records: Sequence[Record]) -> None:
        """Those of runs that have these columns of samples, and no others."""
        samples = [record.result.samples for record in records if record.result is not None]
        arrived = {
            name: np.array([*itertools.chain.from_iterable(getattr(one, name) for one in samples)], _dtype(name))
            for name in told
        }
        arrived["number"] = np.repeat(np.arange(1, len(samples) + 1), [len(one.t_s) for one in samples])
        wanted = ", ".join(name if name in told else "NULL" for name in list(SAMPLE_COLUMNS)[1:])
        keys = [record.cell.key for record in records]
        self._database.register("arrived", arrived)
        self._database.execute(f"INSERT INTO samples SELECT (?::VARCHAR[])[number], {wanted} FROM arrived", [keys])  # noqa: S608 - our own names
        self._database.unregister("arrived")

    def runs(self) -> list[Run]:
        """Every run, in the order in which they were planned and then in which they ended."""
        cursor = self._database.execute(
            "SELECT runs.* FROM runs LEFT JOIN planned USING (key) ORDER BY planned.rowid NULLS LAST, runs.rowid"
        )
        names = [column[0] for column in cursor.description or ()]
        return [self._run(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]

    def find(self, prefix: str) -> Run:
        """The one run whose key begins so.

        Raises:
            ResultsError: none does, or more than one.
        """
        found = [run for run in self.runs() if run.key.startswith(prefix.lower())]
        if not found:
            raise ResultsError(f"no run in {self.folder} has a key that begins with {prefix!r}")
        if len(found) > 1:
            keys = ", ".join(run.key for run in found[:3])
            raise ResultsError(f"{len(found)} runs in {self.folder} have keys that begin with {prefix!r}: {keys} ...")
        return found[0]

    def result(self, run: Run) -> RunResult:
        """All that a run measured, as `pagetide run --json` has it; figures that this version added since are None."""
        columns = self.samples(run.key)
        return RunResult(
            config=run.cell.config,
            machine=run.cell.machine,
            guest=run.guest or "pagetide",
            outcome=run.outcome,
            bursts=self.bursts(run.key),
            skipped_bytes=run.skipped_bytes,
            samples=Samples(**{name: _listed(name, column) for name, column in columns.items()}),
            started=run.started,
            versions=run.versions,
            **{name: run.figures.get(name) for name in FIGURES},  # type: ignore[arg-type]
        )

    def samples(self, key: str) -> dict[str, _Column]:
        """Time series of a run, a float64 column each: t_s, guest_used_bytes, host_resident_bytes and so on.

        What was not told, or not kept by the version that made it, is NaN. A run that left none has columns of no
        entries.
        """
        there = {row[0] for row in self._rows("SELECT column_name FROM (DESCRIBE samples)")}
        wanted = ", ".join(name if name in there else f"NULL AS {name}" for name in SAMPLE_COLUMNS if name != "key")
        found = self._database.execute(
            f"SELECT {wanted} FROM samples WHERE key = ? ORDER BY t_s",  # noqa: S608 - our own names
            [key],
        ).fetchnumpy()
        return {name: np.ma.filled(np.ma.asarray(column, np.float64), np.nan) for name, column in found.items()}

    def bursts(self, key: str) -> list[Burst]:
        """The bursts of a run, in their order."""
        names = list(BURST_COLUMNS)[2:]
        rows = self._rows(f"SELECT {', '.join(names)} FROM bursts WHERE key = ? ORDER BY number", [key])  # noqa: S608 - our own names
        return [Burst(**dict(zip(names, row, strict=True))) for row in rows]

    def export(self) -> list[Path]:
        """Write the tables of runs, samples and bursts as Parquet files beside the database; their paths.

        Raises:
            ResultsError: they cannot be written.
        """
        paths = [self.folder / f"{name}.parquet" for name in EXPORTED]
        try:
            for name, path in zip(EXPORTED, paths, strict=True):
                quoted = str(path).replace("'", "''")
                self._database.execute(f"COPY {name} TO '{quoted}' (FORMAT parquet, COMPRESSION zstd)")
        except duckdb.Error as error:
            raise database.not_written(self.folder, error) from error
        return paths

    def _run(self, row: dict[str, Any]) -> Run:
        skipped = row["skipped_bytes"]
        return Run(
            key=row["key"],
            cell=self._cell(row["config"], row["machine"], row["repeat"]),
            failed=row["failed"],
            outcome=row["outcome"],
            figures={name: value for name, value in row.items() if name not in RUN_COLUMNS},
            guest=row["guest"],
            skipped_bytes=None if skipped is None else msgspec.json.decode(skipped),
            started=row["started"],
            took_s=row["took_s"],
            versions=msgspec.json.decode(row["versions"]),
            costs=row["costs"],
        )

    def _cell(self, config: str, machine: MachineName, repeat: int) -> Cell:
        try:
            return Cell(msgspec.json.decode(config, type=RunConfig), machine, repeat)
        except msgspec.ValidationError as error:
            raise ResultsError(f"the results in {self.folder} are another version's: {error}") from error

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values).fetchall()


def _run_row(record: Record) -> tuple[Any, ...]:
    cell, result = record.cell, record.result
    row = {
        "key": cell.key,
        "machine": cell.machine,
        "repeat": cell.repeat,
        **condition_of(cell.config),
        "config": _json(cell.config),
        "outcome": record.outcome,
        "failed": record.failed,
        "started": record.started,
        "took_s": record.took_s,
        "versions": _json(record.versions),
        "costs": record.costs,
        "guest": None if result is None else result.guest,
        "skipped_bytes": None if result is None or result.skipped_bytes is None else _json(result.skipped_bytes),
        **{name: None if result is None else getattr(result, name) for name in FIGURES},
    }
    return tuple(row[name] for name in TABLES["runs"])


def _has_samples(record: Record) -> bool:
    return record.result is not None and bool(record.result.samples.t_s)


def _told_columns(record: Record) -> list[str]:
    """The columns of samples that a run told; the others have no figures."""
    assert record.result is not None
    return [name for name in list(SAMPLE_COLUMNS)[1:] if None not in getattr(record.result.samples, name)]


def _listed(name: str, column: _Column) -> list[Any]:
    """A column of samples as Samples has it."""
    kind = float if SAMPLE_COLUMNS[name] == "DOUBLE" else int
    return [None if np.isnan(value) else kind(value) for value in column]


def _dtype(name: str) -> type[np.generic]:
    return np.float64 if SAMPLE_COLUMNS[name] == "DOUBLE" else np.int64


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
