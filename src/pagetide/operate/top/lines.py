"""The table's lines: what was seen of each VM, how fast that changes, and how lines are sorted."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagetide.operate.watch.all_vms import Look
from pagetide.operate.watch.seen import Seen
from pagetide.units import format_size

NOT_KNOWN = "-"


class Line(NamedTuple):
    """One VM.

    Attributes:
        seen: what was seen of it.
        returned_per_s: bytes that come back a second since the look before; None if that is not known.
        refaulted_per_s: bytes a second that are found there again.
    """

    seen: Seen
    returned_per_s: float | None = None
    refaulted_per_s: float | None = None


Value = str | int | float | None


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        title: its head.
        value: what it has of a line, and by what it is sorted.
        text: how that is written.
    """

    title: str
    value: Callable[[Line], Value]
    text: Callable[[Value], str]

    @property
    def is_name(self) -> bool:
        """Whether it has words, and not numbers."""
        return self.text is _words


def _words(value: Value) -> str:
    return NOT_KNOWN if value is None else str(value)


def _size(value: Value) -> str:
    return NOT_KNOWN if value is None or isinstance(value, str) else format_size(value)


def _rate(value: Value) -> str:
    return NOT_KNOWN if value is None or isinstance(value, str) else f"{format_size(round(value))}/s"


def _time_us(value: Value) -> str:
    if value is None or isinstance(value, str):
        return NOT_KNOWN
    return f"{value:.0f} µs" if value < 10_000 else f"{value / 1e3:.0f} ms" if value < 1e7 else f"{value / 1e6:.0f} s"


COLUMNS = (
    Column("guest", lambda line: line.seen.name, _words),
    Column("memory", lambda line: line.seen.ram_bytes, _size),
    Column("held", lambda line: line.seen.held_bytes, _size),
    Column("uses", lambda line: line.seen.used_bytes, _size),
    Column("swap", lambda line: line.seen.swapped_bytes, _size),
    Column("balloon", lambda line: line.seen.balloon_bytes, _size),
    Column("returned", lambda line: line.seen.returned_bytes, _size),
    Column("returned/s", lambda line: line.returned_per_s, _rate),
    Column("came back", lambda line: line.seen.refaulted_bytes, _size),
    Column("came back/s", lambda line: line.refaulted_per_s, _rate),
    Column("lag p99", lambda line: line.seen.lag_p99_us, _time_us),
    Column("balloon of", lambda line: line.seen.balloon, _words),
    Column("state", lambda line: line.seen.state, _words),
)
"""The table's, from left to right."""

TITLES = tuple(column.title for column in COLUMNS)
"""Their heads."""

LEFT_OUT = (
    *("swap", "balloon", "balloon of", "returned", "came back"),
    *("uses", "lag p99", "came back/s", "memory", "returned/s"),
)
"""Those that are left out where there is no room for all, the first of them first."""


def lines_of(look: Look, before: Look | None) -> list[Line]:
    """A line for each VM of a look; how fast things change by the look before."""
    earlier = {} if before is None else {seen.name: seen for seen in before.vms}
    passed_s = 0.0 if before is None else look.t_s - before.t_s
    return [_line(seen, earlier.get(seen.name), passed_s) for seen in look.vms]


def _line(seen: Seen, before: Seen | None, passed_s: float) -> Line:
    is_known = before is not None and passed_s > 0 and before.account == seen.account and seen.is_ours
    if before is None or not is_known or before.is_stale or seen.is_stale:
        return Line(seen)
    return Line(
        seen,
        _per_s(before.returned_bytes, seen.returned_bytes, passed_s),
        _per_s(before.refaulted_bytes, seen.refaulted_bytes, passed_s),
    )


def _per_s(before: int | None, now: int | None, passed_s: float) -> float | None:
    return None if before is None or now is None else max(0, now - before) / passed_s


def sort_lines(lines: Sequence[Line], column: int, *, reverse: bool) -> list[Line]:
    """The lines by a column: names from a on, numbers from the largest on, or the other way round; then by name.

    What is not known comes last in any case.
    """
    chosen = COLUMNS[column]
    by_name = sorted(lines, key=lambda line: line.seen.name)
    known = [line for line in by_name if chosen.value(line) is not None]
    unknown = [line for line in by_name if chosen.value(line) is None]
    known.sort(key=lambda line: _key(chosen.value(line)), reverse=goes_down(column, reverse=reverse))
    return known + unknown


def goes_down(column: int, *, reverse: bool) -> bool:
    """Whether lines that are sorted so begin with the largest, or the last name."""
    return reverse if COLUMNS[column].is_name else not reverse


def _key(value: Value) -> tuple[str, float]:
    return (value, 0.0) if isinstance(value, str) else ("", float(value or 0))


def table_text(lines: Sequence[Line]) -> list[list[str]]:
    """The cells of each line."""
    return [[column.text(column.value(line)) for column in COLUMNS] for line in lines]
