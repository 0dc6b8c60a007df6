"""Recorded samples in a temporary database: sorted once on disk, then read some VMs at a time.

Raw rows keep the order in which they were read, so that the first that cannot be is named with its line.
"""

import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb
import numpy as np

from pagetide.fleet.usage.canonical import STEPS_MAX, Grid, Usage, UsageError
from pagetide.fleet.usage.oddities import Count, Oddities, together
from pagetide.fleet.usage.regular import Samples, regular

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "768MB"}

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds in a unit of time."""

_S_MAX = 1e11  # of seconds the year 5138; of milliseconds 1973

_FAULTS = {
    "fields <> expected": "has not as many columns as its heading",
    "vm IS NULL OR vm = ''": "has no VM",
}
"""What no row must be, as SQL and as words."""

_FAULTS_OF_SAMPLES = {
    "zoned": "has a time with a time zone: write UTC without one, or Unix time",
    "time IS NULL OR NOT isfinite(time)": "has no time that can be read",
    "time < 0": "has a time before 0",
    "capacity IS NULL OR NOT isfinite(capacity)": "has no capacity that can be read",
    "capacity < 0": "has a negative capacity",
    "used IS NULL OR NOT isfinite(used)": "has no use that can be read",
    "used < 0": "has negative memory in use",
}
"""What a row must not be either, but for one that is left out because it is empty."""

_EMPTY = "(capacity IS NULL OR used IS NULL)"


RAW_COLUMNS = ("filename", "fields", "expected", "zoned", "dated", "vm", "time", "capacity", "used")
"""What a raw row has: its file, how many columns it has and should have, whether its time has a zone, and whether it is
a date and no number, the VM's name, and as DOUBLE the time in its own unit (a date in seconds) and memory in bytes."""


class Origin(NamedTuple):
    """Where raw rows came from.

    Attributes:
        about: what it is, for people.
        is_text: whether rows are lines below a heading; otherwise they are counted from 1.
        time_unit: the unit of `time`; None to tell it by how large times are.
        heading_unit: the unit that the file says itself; None if it says none.
        may_be_empty: whether a row without memory is left out and counted, rather than refused.
        is_sorted: whether the times of each VM may not run backwards.
    """

    about: str
    is_text: bool
    time_unit: str | None = None
    heading_unit: str | None = None
    may_be_empty: bool = False
    is_sorted: bool = False


class Store:
    """Samples of any number of VMs; a Source. Close it, or use it in a `with` statement."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._folder = tempfile.TemporaryDirectory(prefix="pagetide-fleet-", ignore_cleanup_errors=True)
        self.database = duckdb.connect(Path(self._folder.name) / "usage.duckdb", config=_SETTINGS)

    def close(self) -> None:
        """Remove it."""
        self.database.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, rows: str, values: Sequence[Any], origin: Origin) -> None:
        """Read all rows, check them, and sort them.

        Args:
            rows: a query for the columns of RAW_COLUMNS, in the order of the lines; what cannot be read is NULL.
            values: its parameters.
            origin: where they come from.

        Raises:
            UsageError: a row cannot be, or there are too few.
        """
        self._origin, self.about = origin, origin.about
        self.database.execute(f"CREATE TABLE raw AS {rows}", values)
        self._odd: dict[str, Count] = {}
        backwards = "time < lag(time) OVER (PARTITION BY vm ORDER BY rowid)"
        self._refuse_faults(backwards)
        if origin.may_be_empty:
            self._odd |= self._counted("empty", _EMPTY)
            self.database.execute(f"DELETE FROM raw WHERE {_EMPTY}")  # noqa: S608 - our own words
        unit_s = self._unit_s()
        self._odd |= self._counted("backwards", backwards)
        self.database.execute(
            "CREATE TABLE names AS SELECT vm, row_number() OVER (ORDER BY TRY_CAST(vm AS DOUBLE), vm) - 1 AS number "
            "FROM (SELECT DISTINCT vm FROM raw)"
        )
        self.database.execute(
            "CREATE TABLE samples AS SELECT number, time * ? AS time_s, capacity, used "
            "FROM raw JOIN names USING (vm) ORDER BY number, time_s",
            [unit_s],
        )
        self.database.execute("DROP TABLE raw")
        self.vms = tuple(str(vm) for (vm,) in self._rows("SELECT vm FROM names ORDER BY number"))
        self.grid = self._find_grid()

    def read(self, first: int, end: int) -> tuple[Usage, Oddities]:
        """The VMs from `first` up to `end`; what was odd in the source as a whole is told with the first of them."""
        found = self.database.execute(
            "SELECT number, time_s, capacity, used FROM samples WHERE number >= ? AND number < ? "
            "ORDER BY number, time_s",
            [first, end],
        ).fetchnumpy()
        vm = np.asarray(found["number"], np.int64) - first
        columns = (np.asarray(found[name], np.float64) for name in ("time_s", "capacity", "used"))
        usage, odd = regular(Samples(vm, *columns), self.vms[first:end], self.grid)
        return usage, together([odd, Oddities(0, self._odd)]) if first == 0 else odd

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self.database.execute(query, values).fetchall()

    def _counted(self, name: str, condition: str) -> dict[str, Count]:
        """How many rows are so, by VM."""
        counts = self._rows(
            f"SELECT vm, count(*) FROM (SELECT vm, {condition} AS odd FROM raw) WHERE odd GROUP BY vm "  # noqa: S608
            "ORDER BY count(*) DESC, vm"
        )
        if not counts:
            return {}
        return {name: Count(sum(count for _, count in counts), len(counts), (str(counts[0][0]), counts[0][1]))}

    def _refuse_faults(self, backwards: str) -> None:
        """While all rows are there, by which the wrong one is counted."""
        may_be_empty, is_sorted = self._origin.may_be_empty, self._origin.is_sorted
        samples = f"raw WHERE NOT {_EMPTY}" if may_be_empty else "raw"
        for condition, sentence in _FAULTS.items():
            self._refuse("raw", condition, sentence)
        for condition, sentence in _FAULTS_OF_SAMPLES.items():
            self._refuse(samples, condition, sentence)
        if self._origin.time_unit is not None:
            self._refuse(samples, "dated", "has a time that is no number, and --time-unit says that it is one")
        if is_sorted:
            sentence = "is earlier than the line before it of the same VM, and --sorted says that there is none"
            self._refuse(samples, backwards, sentence)

    def _refuse(self, rows: str, condition: str, sentence: str) -> None:
        """Raise UsageError for the first of these rows of which this is so, if there is one."""
        first = self._rows(
            f"SELECT row FROM (SELECT rowid AS row, {condition} AS wrong FROM {rows}) "  # noqa: S608 - our own words
            "WHERE wrong ORDER BY row LIMIT 1"
        )
        if first:
            raise UsageError(f"{self._place(first[0][0])} {sentence}")

    def _place(self, row: int) -> str:
        """A row by its file and line: `usage.csv, line 7`."""
        ((path, before),) = self._rows(
            "SELECT filename, (SELECT count(*) FROM raw other WHERE other.filename = raw.filename "
            "AND other.rowid < raw.rowid) FROM raw WHERE rowid = ?",
            [row],
        )
        return f"{path}, line {_line(Path(path), before + 1)}" if self._origin.is_text else f"{path}, row {before + 1}"

    def _unit_s(self) -> float:
        """Seconds in the unit of the times."""
        ((latest,),) = self._rows("SELECT max(time) FROM raw")
        if latest is None:
            raise UsageError(f"{self.about} has no samples")
        unit, origin = self._origin.time_unit, self._origin
        if unit is None:
            unit = next((name for name, unit_s in TIME_UNITS.items() if latest * unit_s < _S_MAX), "ns")
        if origin.heading_unit is not None and unit != origin.heading_unit:
            self._odd |= self._counted("unit", "TRUE")
        return TIME_UNITS[unit]

    def _find_grid(self) -> Grid:
        """From the first sample to the last, in steps of what lies between two samples of a VM most often."""
        ((first_s, last_s, step_s),) = self._rows(
            "SELECT min(time_s), max(time_s), median(since_s) FILTER (since_s > 0) FROM (SELECT time_s, "
            "time_s - lag(time_s) OVER (PARTITION BY number ORDER BY time_s) AS since_s FROM samples)"
        )
        if step_s is None:
            raise UsageError(f"{self.about} has no VM with samples of two instants")
        start_s, step = math.floor(first_s), max(1, round(step_s))
        steps = math.floor((last_s - start_s) / step + 0.5) + 1
        if steps > STEPS_MAX:
            raise UsageError(
                f"{self.about} goes from {first_s:.0f} to {last_s:.0f} s in steps of {step} s, which are more than "
                f"{STEPS_MAX:,}: is the unit of time right?"
            )
        return Grid(start_s, step, steps)


def _line(path: Path, row: int) -> int:
    """The line of a file's row, counted from 1, below the heading; empty lines are no rows."""
    with path.open("rb") as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next(itertools.islice(filled, row, None))
