"""One Parquet or CSV file with the usage of a fleet, a row a sample, its columns named by options."""

from pathlib import Path

import msgspec

from pagetide.fleet.usage.canonical import UsageError
from pagetide.fleet.usage.store import Origin, Store
from pagetide.fleet.usage.text import field, heading, rows

MEMORY_UNITS = {"B": 1, "KB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
"""Bytes in a unit of memory."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """What a file's columns are called, and in which units they are.

    Attributes:
        vm: the VM's name or number.
        time: when the sample was taken.
        capacity: memory of the VM.
        used: how much of it it used.
        memory_unit: a name in MEMORY_UNITS.
        time_unit: a name in `store.TIME_UNITS`; None to tell it by how large the times are.
        is_sorted: whether the times of each VM may not run backwards.
    """

    vm: str = "vm"
    time: str = "time_s"
    capacity: str = "capacity_bytes"
    used: str = "used_bytes"
    memory_unit: str = "B"
    time_unit: str | None = None
    is_sorted: bool = False


def take_table(store: Store, path: Path, columns: Columns) -> None:
    """Read such a file: CSV if its name ends in .csv, Parquet otherwise.

    Raises:
        UsageError: it cannot be read, lacks a column, or has a row that cannot be.
    """
    is_text = path.suffix.lower() in (".csv", ".tsv", ".txt")
    query = _text_rows(path, columns) if is_text else _parquet_rows(store, path, columns)
    origin = Origin(
        str(path),
        is_text=is_text,
        time_unit=columns.time_unit,
        may_be_empty=not is_text,
        is_sorted=columns.is_sorted,
    )
    store.take(query, [[str(path)]], origin)


def _check(path: Path, there: list[str], columns: Columns) -> None:
    for option, name in _names(columns).items():
        if name not in there:
            raise UsageError(f"{path} has no column {name!r} but {', '.join(there)}: name it with --{option}-column")


def _names(columns: Columns) -> dict[str, str]:
    return {"vm": columns.vm, "time": columns.time, "capacity": columns.capacity, "used": columns.used}


def _text_rows(path: Path, columns: Columns) -> str:
    separator, there = heading(path)
    _check(path, there, columns)
    return rows(separator, there, _names(columns), MEMORY_UNITS[columns.memory_unit], field(there, columns.vm))


def _parquet_rows(store: Store, path: Path, columns: Columns) -> str:
    described = store.database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [[str(path)]]).fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    _check(path, list(types), columns)
    time_type = types[columns.time]
    if "TIME ZONE" in time_type:
        raise UsageError(f"{path}: the column {columns.time} has a time zone: write UTC without one, or Unix time")
    for name in (columns.capacity, columns.used, *([] if time_type.startswith("TIMESTAMP") else [columns.time])):
        if not types[name].removeprefix("U").startswith(_NUMBERS):
            raise UsageError(f"{path}: the column {name} is {types[name]}, and not a number")
    vm, time, capacity, used = (_quoted(name) for name in _names(columns).values())
    unit = MEMORY_UNITS[columns.memory_unit]
    dated = time_type.startswith("TIMESTAMP")
    as_number = f"epoch({time})" if dated else f"CAST({time} AS DOUBLE)"
    return (  # names are quoted, and the rest is ours
        f"SELECT filename, 0 AS fields, 0 AS expected, FALSE AS zoned, {dated} AS dated, "  # noqa: S608
        f"CAST({vm} AS VARCHAR) AS vm, "
        f"{as_number} AS time, CAST({capacity} AS DOUBLE) * {unit} AS capacity, "
        f"CAST({used} AS DOUBLE) * {unit} AS used "
        "FROM read_parquet(?, filename = true)"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
