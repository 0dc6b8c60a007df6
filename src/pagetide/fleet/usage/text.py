"""Text files with a row a line: read whole, each line cut at its separators, so that every fault has its line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pagetide.fleet.usage.canonical import UsageError

SEPARATORS = ";,\t"

_LINES = (
    "SELECT filename, string_split(line, '{separator}') AS fields FROM read_csv(?, columns = {{'line': 'VARCHAR'}}, "
    "delim = '\x01', quote = '', escape = '', header = false, skip = 1, auto_detect = false, strict_mode = false, "
    "filename = true) WHERE trim(line, e' \\t\\r') <> ''"
)
_HEADING_BYTES_MAX = 1 << 16


def heading(path: Path) -> tuple[str, list[str]]:
    """A file's separator, and what its first line calls the columns.

    Raises:
        UsageError: it cannot be read, or its first line is none.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(_HEADING_BYTES_MAX).decode()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path}, line 1 is not text") from None
    separator = max(SEPARATORS, key=line.count)
    if separator not in line:
        raise UsageError(f"{path}, line 1 is no heading of columns with {' or '.join(map(repr, SEPARATORS))} between")
    return separator, [name.strip(' \t\r\n"') for name in line.split(separator)]


def rows(separator: str, columns: Sequence[str], wanted: Mapping[str, str], unit_bytes: int, vm: str) -> str:
    """A query for raw rows (`store.RAW_COLUMNS`) of text files; its parameter is their paths.

    Args:
        separator: what is between two columns.
        columns: the heading.
        wanted: for time, capacity and used, what the heading calls them.
        unit_bytes: of memory.
        vm: the VM's name, as an expression over `filename` and `fields`.
    """
    time, capacity, used = (field(columns, wanted[name]) for name in ("time", "capacity", "used"))
    return (
        f"SELECT filename, len(fields) AS fields, {len(columns)} AS expected, "  # noqa: S608 - our own words
        f"regexp_matches({time}, ':[0-9.:]+ ?(Z|UTC|[+-][0-9:]+)$') AS zoned, "
        f"TRY_CAST({time} AS DOUBLE) IS NULL AS dated, {vm} AS vm, "
        f"coalesce(TRY_CAST({time} AS DOUBLE), epoch(TRY_CAST({time} AS TIMESTAMP))) AS time, "
        f"TRY_CAST({capacity} AS DOUBLE) * {unit_bytes} AS capacity, TRY_CAST({used} AS DOUBLE) * {unit_bytes} AS used "
        f"FROM ({_LINES.format(separator=separator)})"
    )


def field(columns: Sequence[str], name: str) -> str:
    """A column as an expression: without spaces, tabs and quotes around it."""
    return f"""trim(fields[{columns.index(name) + 1}], e' \\t\\r"')"""
