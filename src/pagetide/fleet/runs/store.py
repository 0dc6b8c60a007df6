"""What jobs of a fleet found: `fleet.duckdb` in a folder, one job a transaction: whatever ends it leaves whole jobs.

Bytes are kept as whole numbers: sums of them do not depend on the order in which jobs ended.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.held import CAPACITY, HELD, HELD_MOST, REFAULTED, RETURNED, STEPS, USED
from pagetide.fleet.guests.response import Response
from pagetide.fleet.hosts.answering.answer import Answer
from pagetide.fleet.hosts.pressure import Pressure
from pagetide.fleet.runs.jobs import Done
from pagetide.workers import database
from pagetide.workers.database import ResultsError

DATABASE = "fleet.duckdb"
"""The database's name in its folder."""

FIGURE_COLUMNS = {
    "known_steps": STEPS,
    "used_byte_steps": USED,
    "capacity_byte_steps": CAPACITY,
    "held_byte_steps": HELD,
    "held_most_bytes": HELD_MOST,
    "returned_bytes": RETURNED,
    "refaulted_bytes": REFAULTED,
}
"""A VM's figures by column: which of `held.py`'s each is."""

_DRAWN = ("known_steps", "held_byte_steps", "returned_bytes", "refaulted_bytes")

TABLES: Mapping[str, Mapping[str, str]] = {
    "asked": {"question": "VARCHAR"},
    "jobs": {"job": "BIGINT", "setting": "BIGINT", "name": "VARCHAR"},
    "vms": {
        "job": "BIGINT",
        "vm": "VARCHAR",
        "part": "VARCHAR",
        "reserved_bytes": "BIGINT",
        **dict.fromkeys(FIGURE_COLUMNS, "BIGINT"),
    },
    "steps": {"job": "BIGINT", "step": "BIGINT", "held_bytes": "BIGINT"},
    "draws": {"job": "BIGINT", "draw": "BIGINT", "part": "BIGINT", **dict.fromkeys(_DRAWN, "BIGINT")},
    "placed": {
        "job": "BIGINT",
        "plan": "VARCHAR",
        "draw": "BIGINT",
        "vms": "BIGINT",
        **dict.fromkeys(Pressure._fields, "BIGINT"),
    },
    "answers": {"job": "BIGINT", "plan": "VARCHAR", **dict.fromkeys(Answer._fields, "BIGINT")},
    "heat": {"job": "BIGINT", "plan": "VARCHAR", "host": "BIGINT", "span": "BIGINT", "share": "FLOAT"},
}
"""Each table's columns. `setting` and `job` are numbers; a VM, plan or draw is one of its job."""

_MEMORY_LIMIT = "512MB"


class Results:
    """The results in one folder. Close it, or use it in a `with` statement."""

    def __init__(self, folder: Path, opened: duckdb.DuckDBPyConnection) -> None:
        """Take an open database; `create`, `open` and `resume` make one."""
        self.folder = folder
        self.database = opened

    @classmethod
    def create(cls, folder: Path, question: Any) -> Self:
        """Make an empty database in a folder, and the folder if need be.

        Args:
            folder: has no results yet.
            question: all that decides what comes out, for `resume`; it becomes JSON.

        Raises:
            ResultsError: there are results already, or it cannot be made.
        """
        asked = {"asked": (_json(question),)}
        return cls(folder, database.create(folder / DATABASE, TABLES, _MEMORY_LIMIT, asked))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the results in a folder.

        Raises:
            ResultsError: there are none, they were not begun, or they cannot be read.
        """
        path = folder / DATABASE
        if not path.is_file():
            raise ResultsError(f"there is nothing to go on with in {folder}: it has no {DATABASE}")
        results = cls(folder, database.connect(path, _MEMORY_LIMIT))
        try:
            if not results._is_begun:
                raise ResultsError(f"nothing was begun in {path}: delete it, and start without --resume")
        except BaseException as error:
            results.close()
            if isinstance(error, duckdb.Error):
                raise database.not_read(path, error) from error
            raise
        return results

    @property
    def _is_begun(self) -> bool:
        """Whether all tables are there, and what was asked."""
        there = {name for (name,) in self.rows("SELECT table_name FROM duckdb_tables()")}
        return there >= TABLES.keys() and bool(self.rows("SELECT question FROM asked"))

    @classmethod
    def resume(cls, folder: Path, question: Any) -> Self:
        """Open the results in a folder, to go on with them.

        Raises:
            ResultsError: there are none, or of another question.
        """
        results = cls.open(folder)
        (asked,) = results.rows("SELECT question FROM asked")
        if asked[0] != _json(question):
            results.close()
            raise ResultsError(
                f"the results in {folder} are of another fleet, question or version: start anew with another --out"
            )
        return results

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return self.database.execute(query, values).fetchall()

    def columns(self, query: str, values: Sequence[Any] = ()) -> dict[str, npt.NDArray[Any]]:
        """The same as columns."""
        return dict(self.database.execute(query, values).fetchnumpy())

    @property
    def done(self) -> set[int]:
        """The numbers of the jobs that are kept."""
        return {number for (number,) in self.rows("SELECT job FROM jobs")}

    def add(self, done: Done) -> None:
        """Keep what became of a job: all of it, or nothing if this is interrupted.

        Raises:
            ResultsError: it cannot be written.
        """
        try:
            with database.transaction(self.database):
                for table, columns in _tables_of(done):
                    self._insert(table, done.job.number, columns)
        except duckdb.Error as error:
            raise database.not_written(self.folder, error) from error

    def _insert(self, table: str, job: int, columns: dict[str, Any]) -> None:
        arrays = {name: _whole(np.asarray(column)) for name, column in columns.items()}
        if len(next(iter(arrays.values()))):
            self.database.register("arrived", arrays)
            self.database.execute(
                f"INSERT INTO {table} (job, {', '.join(arrays)}) SELECT ?, * FROM arrived",  # noqa: S608 - our own names
                [job],
            )
            self.database.unregister("arrived")


def _tables_of(done: Done) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a job, as columns of each table."""
    yield "jobs", {"setting": [done.job.setting], "name": np.array([done.job.mixture.name], object)}
    figures = {name: done.figures[:, number] for name, number in FIGURE_COLUMNS.items()}
    names = {"vm": np.array(done.names, object), "part": _names(done.job.mixture.parts)[done.parts]}
    yield "vms", {**names, "reserved_bytes": done.reserved_bytes, **figures}
    yield "steps", {"step": np.arange(len(done.by_step)), "held_bytes": done.by_step}
    drawn = {name: done.drawn[..., number].ravel() for number, name in enumerate(_DRAWN)}
    draws, parts = (index.ravel() for index in np.indices(done.drawn.shape[:2]))
    yield "draws", {"draw": draws, "part": parts, **drawn}
    placed = _turned([(one.plan, one.draw, one.vms, *one.pressure) for one in done.placed], 3 + len(Pressure._fields))
    yield "placed", dict(zip(("plan", "draw", "vms", *Pressure._fields), placed, strict=True))
    answers = _turned([(plan, *answer) for plan, answer in done.answers.items()], 1 + len(Answer._fields))
    yield "answers", dict(zip(("plan", *Answer._fields), answers, strict=True))
    for plan, shares in done.heat.items():
        hosts, spans = (index.ravel() for index in np.indices(shares.shape))
        plans = np.full(shares.size, plan, object)
        yield "heat", {"plan": plans, "host": hosts, "span": spans, "share": shares.ravel()}


def _names(parts: Sequence[Response]) -> npt.NDArray[np.object_]:
    return np.array([part.name for part in parts], object)


def _turned(rows: Iterable[tuple[Any, ...]], columns: int) -> list[npt.NDArray[Any]]:
    """Rows, of which the first value is a name, as columns."""
    whole = list(rows)
    turned = [[row[column] for row in whole] for column in range(columns)]
    return [np.array(turned[0], object), *(np.array(column) for column in turned[1:])]


def _whole(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bytes as whole numbers; shares, which are float32, stay as they are."""
    return np.rint(column).astype(np.int64) if column.dtype == np.float64 else column


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
