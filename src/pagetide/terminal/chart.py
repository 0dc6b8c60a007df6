"""A chart of a run in characters: what the host holds as a filled area, what the guest uses as a line across it.

The two differ in shape, so the chart reads without colour, on paper and in a pipe.
"""

import math
from collections.abc import Sequence

from pagetide.units import format_size

GUEST_MARK = "━"
"""The guest's line."""

HOST_MARKS = " ▁▂▃▄▅▆▇█"
"""The host's area, by eighths of a row."""

_LABEL_COLUMNS = 9


def value_at(t_s: Sequence[float], values: Sequence[float | None], at_s: float) -> float | None:
    """The last value sampled up to this time; None before the first."""
    low, high = 0, len(t_s)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if t_s[middle] <= at_s else (low, middle)
    return values[low - 1] if low else None


def draw_chart(
    t_s: Sequence[float],
    used_bytes: Sequence[int | None],
    resident_bytes: Sequence[int],
    *,
    columns: int,
    rows: int,
    from_s: float,
    to_s: float,
    top_bytes: int,
) -> list[str]:
    """The chart's lines, top first: the rows, the time axis, the legend.

    Args:
        t_s: sample times in seconds, rising.
        used_bytes: what the guest used at each; None where that is not known.
        resident_bytes: what the host held at each.
        columns: width of every line at most, labels included.
        rows: height of the picture without axis and legend.
        from_s: time at the left edge.
        to_s: time at the right edge.
        top_bytes: value at the top edge.
    """
    assert rows >= 1
    assert top_bytes > 0
    width = _width(columns)
    times = column_times(t_s, columns, from_s, to_s)
    held = [_eighths(value_at(t_s, resident_bytes, at_s), rows, top_bytes) for at_s in times]
    used = [_row(value_at(t_s, used_bytes, at_s), rows, top_bytes) for at_s in times]
    lines = []
    for row in reversed(range(rows)):
        cells = [
            GUEST_MARK if used[column] == row else HOST_MARKS[min(max(held[column] - 8 * row, 0), 8)]
            for column in range(len(times))
        ]
        label = format_size(top_bytes * (row + 1) / rows) if row == rows - 1 or row == (rows - 1) // 2 else ""
        lines.append(f"{label:>{_LABEL_COLUMNS}}┤" + "".join(cells).rstrip())
    lines.append(f"{'0':>{_LABEL_COLUMNS}}└" + "─" * width)
    left, right = f"{from_s:.0f} s", f"{to_s:.0f} s"
    lines.append(" " * (_LABEL_COLUMNS + 1) + left + right.rjust(max(width - len(left), len(right) + 1)))
    lines.append(f"{'':{_LABEL_COLUMNS}} {GUEST_MARK * 2} the guest uses   {HOST_MARKS[-1] * 2} the host holds")
    return [line[:columns] for line in lines]


def draw_strip(values: Sequence[float], *, columns: int, rows: int, top: float, label: str) -> list[str]:
    """A low chart of one thing as a filled area, to stand under a chart; its lines, top first.

    Args:
        values: one a column, from the left edge on.
        columns: width of every line at most, labels included.
        rows: height.
        top: value at the top edge.
        label: that value, for people.
    """
    heights = [_eighths(value, rows, top) for value in values]
    lines = []
    for row in reversed(range(rows)):
        cells = "".join(HOST_MARKS[min(max(height - 8 * row, 0), 8)] for height in heights)
        lines.append(f"{label if row == rows - 1 else '':>{_LABEL_COLUMNS}}┤{cells.rstrip()}"[:columns])
    return lines


def column_times(t_s: Sequence[float], columns: int, from_s: float, to_s: float) -> list[float]:
    """The times at the right edges of a chart's columns; what has not happened yet has none."""
    width = _width(columns)
    step_s = (to_s - from_s) / width
    end_s = t_s[-1] + step_s if t_s else from_s
    return [at_s for column in range(width) if (at_s := from_s + (column + 1) * step_s) <= end_s]


def _width(columns: int) -> int:
    """Columns of the picture itself."""
    return max(1, columns - _LABEL_COLUMNS - 1)


def _eighths(value: float | None, rows: int, top: float) -> int:
    """Height of the area in eighths of a row; anything at all shows."""
    if not value:
        return 0
    return min(8 * rows, max(1, math.floor(8 * rows * value / top)))


def _row(value: float | None, rows: int, top_bytes: int) -> int | None:
    """The row that the line is in; None where there is no line."""
    return None if value is None else min(rows - 1, math.floor(rows * value / top_bytes))
