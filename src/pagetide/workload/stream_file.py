"""Streams in Parquet files: a row an operation, the marks and the end as JSON under the key `pagetide`.

A file from elsewhere needs the five columns and nothing more: then it has one stretch, and ends with its last
operation. Two more, `freed_by` and `migratetype`, are read where they are there.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pagetide.workload.stream import Mark, Stream, StreamError

_COLUMNS = {"at_s": np.float64, "kind": np.uint8, "order": np.uint8, "slot": np.int32, "vcpu": np.uint16}
_OPTIONAL = {"freed_by": np.uint16, "migratetype": np.uint8}
_TYPES = {
    "at_s": "DOUBLE",
    "kind": "UTINYINT",
    "order": "UTINYINT",
    "slot": "INTEGER",
    "vcpu": "USMALLINT",
    "freed_by": "USMALLINT",
    "migratetype": "UTINYINT",
}
_GLOB = frozenset("*?[{")


class _Metadata(msgspec.Struct):
    """What a stream has beside its columns."""

    marks: tuple[Mark, ...]
    end_s: float


def save_stream(stream: Stream, path: Path) -> None:
    """Write a stream to a Parquet file, replacing one that is there.

    Raises:
        StreamError: it cannot be written; the sentence names the file.
    """
    import duckdb

    metadata = msgspec.json.encode(_Metadata(stream.marks, stream.end_s)).decode()
    try:
        with duckdb.connect() as database:
            database.register("operations", stream.columns)
            database.execute(
                f"COPY (SELECT * FROM operations) TO {_quoted(str(path))} "  # noqa: S608 - both are quoted
                f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{pagetide: {_quoted(metadata)}}})"
            )
    except duckdb.Error as error:
        raise StreamError(f"the stream cannot be written to {path}: {_first_line(error)}") from error


def load_stream(path: Path) -> Stream:
    """Read a stream from a Parquet file, and check it; slots are numbered anew where other vCPUs free them.

    Raises:
        StreamError: it cannot be read, is no Parquet file, lacks a column, or is no stream; the sentence names it.
    """
    import duckdb

    if not path.is_file():
        raise StreamError(f"there is no stream in {path}: it is not a file")
    if _GLOB & set(str(path)):
        raise StreamError(f"the stream cannot be read from {path}: the name has a character that stands for others")
    try:
        with duckdb.connect() as database:
            columns = _read_columns(database, path)
            found = database.execute(
                "SELECT value FROM parquet_kv_metadata(?) WHERE key = 'pagetide'", [str(path)]
            ).fetchone()
    except duckdb.Error as error:
        raise StreamError(f"the stream cannot be read from {path}: {_first_line(error)}") from error
    return _checked(columns, found[0] if found else None, path)


def _read_columns(database: Any, path: Path) -> dict[str, Any]:
    there = {row[0] for row in database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()}
    missing = [name for name in _COLUMNS if name not in there]
    if missing:
        raise StreamError(f"{path} is no stream: it has no column {missing[0]}")
    wanted = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in _TYPES.items() if name in there)
    columns: dict[str, Any] = database.execute(
        f"SELECT {wanted} FROM read_parquet(?)",  # noqa: S608 - no word of it comes from outside
        [str(path)],
    ).fetchnumpy()
    return columns


def _checked(columns: dict[str, Any], metadata: bytes | None, path: Path) -> Stream:
    if any(np.ma.is_masked(column) for column in columns.values()):
        raise StreamError(f"{path} is no stream: a column has an empty entry")
    types = {name: kind for name, kind in (_COLUMNS | _OPTIONAL).items() if name in columns}
    arrays = {name: np.ascontiguousarray(columns[name], kind) for name, kind in types.items()}
    last_s = float(arrays["at_s"].max(initial=0))
    try:
        about = _Metadata((Mark(0, path.stem),), last_s)
        if metadata is not None:
            about = msgspec.json.decode(metadata, type=_Metadata)
        stream = Stream(**arrays, marks=about.marks, end_s=about.end_s)
        stream.check()
    except msgspec.MsgspecError as error:
        raise StreamError(f"{path} is no stream: its marks cannot be read ({error})") from error
    except StreamError as error:
        raise StreamError(f"{path} is no stream that can be run: it {error}") from error
    return stream.with_slots_by_freer()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
