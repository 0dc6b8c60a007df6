"""The picture of a run as it goes on, as wide and as high as there is room for: memory, refaults, lag, and the rest."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pagetide.machine.result import Sample
from pagetide.terminal.chart import GUEST_MARK, HOST_MARKS, column_times, draw_chart, draw_strip, value_at
from pagetide.units import MIB, format_size

WINDOW_S = 20.0
"""How much of the run is shown."""

_CHART_ROWS = 12
_AXIS_LINES = 3  # with the legend
_STRIPS_FROM_LINES = 12
_STRIP_SHARE = 6
_STRIP_ROWS_MIN = 2
_BESIDE_BAR_COLUMNS = 31
_BAR_COLUMNS_MIN = 10
_RATE_MIN = MIB
_WAITED_MIN_S = 1.0


class Recent(NamedTuple):
    """What is shown of a run.

    Attributes:
        samples: the last ones.
        waited_s: for how long the oldest free byte that the host held had been waiting at each.
        ram_bytes: the top of the chart.
    """

    samples: Sequence[Sample]
    waited_s: Sequence[float]
    ram_bytes: int

    @property
    def to_s(self) -> float:
        """The right edge; the left one is WINDOW_S before it."""
        return max(self.samples[-1].t_s, WINDOW_S)


def chart_text(
    samples: Sequence[Sample], ram_bytes: int, columns: int, from_s: float, to_s: float, rows: int = _CHART_ROWS
) -> Text:
    """The chart of these samples, coloured for a terminal that has colours."""
    lines = draw_chart(
        [sample.t_s for sample in samples],
        [sample.guest_used_bytes for sample in samples],
        [sample.host_resident_bytes for sample in samples],
        columns=columns,
        rows=rows,
        from_s=from_s,
        to_s=to_s,
        top_bytes=ram_bytes,
    )
    text = _marked(lines, "blue")
    text.highlight_regex(f"{GUEST_MARK}+", "bold yellow")
    return text


def draw_recent(recent: Recent, columns: int, lines: int) -> RenderableType:
    """All of it in at most so many lines of so many columns; in few lines refaults and lag are figures alone."""
    bars = list(_bars(recent.samples[-1]))
    room = lines - _AXIS_LINES - 1 - len(bars)
    rows = max(_STRIP_ROWS_MIN, room // _STRIP_SHARE) if room >= _STRIPS_FROM_LINES else 0
    strips = list(_strips(recent, columns, rows))
    if rows:
        rows_left = room - sum(1 + rows for _ in strips)
    else:
        strips = [Text("   ".join(strip.plain for strip in strips), no_wrap=True)] if room > 2 else []
        rows_left = room - len(strips)
    to_s = recent.to_s
    chart = chart_text(recent.samples, recent.ram_bytes, columns, to_s - WINDOW_S, to_s, max(1, rows_left))
    return Group(chart, *strips, Text(""), _table(bars, recent.ram_bytes, columns))


def _strips(recent: Recent, columns: int, rows: int) -> Iterator[Text]:
    """What is now, and with rows how it came there."""
    t_s, last = [sample.t_s for sample in recent.samples], recent.samples[-1]
    ends_s = column_times(t_s, columns, recent.to_s - WINDOW_S, recent.to_s)
    if last.refaulted_bytes is not None:
        so_far = [sample.refaulted_bytes or 0 for sample in recent.samples]
        rates = _rates(t_s, so_far, [recent.to_s - WINDOW_S, *ends_s])
        top = max([_RATE_MIN, *rates])
        lines = draw_strip(rates, columns=columns, rows=rows, top=top, label=format_size(round(top)))
        heading = f"refaulted so far: {format_size(last.refaulted_bytes)}{'; a second:' if rows else ''}"
        yield _marked([heading, *lines], "red")
    waited_s = [value_at(t_s, recent.waited_s, at_s) or 0.0 for at_s in ends_s]
    top_s = max([_WAITED_MIN_S, *waited_s])
    lines = draw_strip(waited_s, columns=columns, rows=rows, top=top_s, label=f"{top_s:.1f} s")
    meaning = ", for so long the host has held the oldest of what is free" if rows else ""
    yield _marked([f"lag now: {recent.waited_s[-1]:.1f} s{meaning}", *lines], "magenta")


def _rates(t_s: Sequence[float], so_far_bytes: Sequence[int], edges_s: Sequence[float]) -> list[float]:
    """Bytes a second between each two edges."""
    by_edge = [value_at(t_s, so_far_bytes, at_s) or 0 for at_s in edges_s]
    return [
        (after - before) / (end_s - start_s)
        for (before, after), (start_s, end_s) in zip(pairwise(by_edge), pairwise(edges_s), strict=True)
    ]


def _bars(last: Sample) -> Iterator[tuple[str, int, str]]:
    yield "guest uses", last.guest_used_bytes, "bold yellow"
    if last.reported_bytes is None:
        yield "free", last.guest_free_bytes, "green"
    else:
        yield "free, reported", last.reported_bytes, "green"
        yield "free, not reported", max(0, last.guest_free_bytes - last.reported_bytes), "red"
    yield "host holds", last.host_resident_bytes, "blue"


def _table(bars: Sequence[tuple[str, int, str]], ram_bytes: int, columns: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    width = max(_BAR_COLUMNS_MIN, columns - _BESIDE_BAR_COLUMNS)
    for name, value, style in bars:
        filled = round(width * min(1.0, value / ram_bytes))
        table.add_row(f"{name:>18}", Text(f"{format_size(value):>9}"), Text("█" * filled, style=style))
    return table


def _marked(lines: Sequence[str], colour: str) -> Text:
    """Lines of a chart, its area coloured."""
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    text.highlight_regex(f"[{HOST_MARKS.strip()}]+", colour)
    return text
