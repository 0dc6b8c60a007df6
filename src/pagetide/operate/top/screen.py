"""What `pagetide top` shows, as lines that fit the terminal: the table, or one VM's curves and page map."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rich.text import Text

from pagetide.host.memory.page_map import HELD, NAMES, NEVER, PARTIAL, REFAULTED, RETURNED, UNKNOWN
from pagetide.operate.top.lines import COLUMNS, LEFT_OUT, TITLES, Line, goes_down, table_text
from pagetide.operate.watch.all_vms import Look
from pagetide.operate.watch.guest_map import GuestMap
from pagetide.terminal.chart import GUEST_MARK, HOST_MARKS, draw_chart
from pagetide.units import HUGE_PAGE_BYTES, format_size

KEPT_LOOKS = 600
"""How many looks a VM's curves go back."""

_MARKS = {HELD: "█", PARTIAL: "▒", REFAULTED: "▓", RETURNED: "·", NEVER: " ", UNKNOWN: "?"}
_STYLES = {HELD: "blue", PARTIAL: "cyan", REFAULTED: "bold yellow", RETURNED: "green", NEVER: "", UNKNOWN: "dim"}
_TABLE_KEYS = "←→ column   r other way   ↑↓ guest   Enter its map and curves   q end"
_GUEST_KEYS = "Esc back   ↑↓ next guest   q end"
_CHART_ROWS_MAX = 10
_GAP = "  "


class Point(NamedTuple):
    """What a VM's curves have of one look."""

    t_s: float
    held_bytes: int
    used_bytes: int | None


class TableView(NamedTuple):
    """What of the table is seen.

    Attributes:
        lines: sorted.
        column: by which.
        reverse: whether the other way round.
        chosen: the name of the VM that is marked.
    """

    lines: Sequence[Line]
    column: int
    reverse: bool
    chosen: str


class GuestView(NamedTuple):
    """What is seen of one VM.

    Attributes:
        line: what was seen last.
        points: its curves.
        page_map: its map, if there is one yet.
        trouble: why there is none.
    """

    line: Line
    points: deque[Point]
    page_map: GuestMap | None
    trouble: str


def table_screen(view: TableView, look: Look, width: int, height: int) -> list[Text]:
    """The head, as many VMs as there is room for, the chosen one among them, and the keys."""
    cells = table_text(view.lines)
    titles = list(TITLES)
    titles[view.column] += "▾" if goes_down(view.column, reverse=view.reverse) else "▴"
    widths = _widths([titles, *cells])
    _leave_out(widths, width, TITLES[view.column])
    room = max(1, height - 4)
    place = next((index for index, line in enumerate(view.lines) if line.seen.name == view.chosen), 0)
    top = min(max(0, place - room + 1), max(0, len(cells) - room))
    screen = [_headline(view.lines, look), _row(titles, widths, "reverse")]
    screen += [
        _row(cells[index], widths, "bold reverse" if index == place else "")
        for index in range(top, min(len(cells), top + room))
    ]
    more = len(cells) - top - room
    note = look.trouble or (f"{more} more below" if more > 0 else "")
    return [*_padded(screen, height - 2), _line(note, "yellow"), _line(_TABLE_KEYS, "dim")]


def guest_screen(view: GuestView, width: int, height: int) -> list[Text]:
    """One VM: its figures, its curves and its page map, and the keys."""
    seen = view.line.seen
    process = "" if seen.pid is None else f"   {seen.vmm} {seen.pid}"
    screen = [_line(f"{seen.name}{process}   balloon: {seen.balloon}   {seen.state or ''}".rstrip(), "bold")]
    screen.append(_line("   ".join(_figures(view.line))))
    rows = min(_CHART_ROWS_MAX, max(1, (height - 10) // 2))
    screen += _chart(view, width, rows)
    screen.append(Text())
    screen += _map(view, width, max(1, height - len(screen) - 3))
    return [*_padded(screen, height - 1), _line(_GUEST_KEYS, "dim")]


def plain_table(lines: Sequence[Line], waiting: Sequence[str]) -> str:
    """The table for a file or a pipe."""
    cells = [list(TITLES), *table_text(lines)]
    cells += [[name, *["-"] * (len(COLUMNS) - 2), "no guest"] for name in waiting]
    widths = _widths(cells)
    return "\n".join(_row(row, widths, "").plain.rstrip() for row in cells)


def _headline(lines: Sequence[Line], look: Look) -> Text:
    held, ram = (sum(getattr(line.seen, name) for line in lines) for name in ("held_bytes", "ram_bytes"))
    waiting = f", {len(look.waiting)} sockets without a guest" if look.waiting else ""
    vms = "1 VM" if len(lines) == 1 else f"{len(lines)} VMs"
    return _line(f"{vms}, {format_size(held)} held of {format_size(ram)}{waiting}", "bold")


def _widths(cells: Sequence[Sequence[str]]) -> dict[str, int]:
    """How wide each column is, by its title."""
    return {title: max(len(row[index]) for row in cells) for index, title in enumerate(TITLES)}


def _leave_out(widths: dict[str, int], room: int, kept: str) -> None:
    """Have no more columns than there is room for, this one in any case."""
    for title in LEFT_OUT:
        if sum(widths.values()) + len(_GAP) * (len(widths) - 1) <= room:
            return
        if title != kept:
            del widths[title]


def _row(cells: Sequence[str], widths: dict[str, int], style: str) -> Text:
    texts = [
        cell.ljust(widths[column.title]) if column.is_name else cell.rjust(widths[column.title])
        for cell, column in zip(cells, COLUMNS, strict=True)
        if column.title in widths
    ]
    return _line(_GAP.join(texts), style)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="crop")


def _padded(screen: list[Text], height: int) -> list[Text]:
    return screen[:height] + [Text()] * (height - len(screen))


def _figures(line: Line) -> Iterator[str]:
    for column in COLUMNS:
        value = column.value(line)
        if value is not None and not column.is_name:
            yield f"{column.title} {column.text(value)}"


def _chart(view: GuestView, width: int, rows: int) -> list[Text]:
    points = view.points
    end_s = points[-1].t_s
    lines = draw_chart(
        [point.t_s - end_s for point in points],
        [point.used_bytes for point in points],
        [point.held_bytes for point in points],
        columns=width,
        rows=rows,
        from_s=min(points[0].t_s - end_s, -60.0),
        to_s=0.0,
        top_bytes=max(1, view.line.seen.ram_bytes),
    )
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    text.highlight_regex(f"[{HOST_MARKS.strip()}]+", "blue")
    text.highlight_regex(f"{GUEST_MARK}+", "bold yellow")
    return list(text.split("\n"))


def _map(view: GuestView, width: int, rows: int) -> list[Text]:
    if view.page_map is None or not view.page_map.letters:
        return [Text(view.trouble or "the page map is being read", "yellow" if view.trouble else "dim")]
    letters = cells_of(view.page_map.letters, width * rows)
    lines = []
    for start in range(0, len(letters), width):
        line = Text(no_wrap=True, overflow="crop")
        for letter in letters[start : start + width]:
            line.append(_MARKS[letter], _STYLES[letter])
        lines.append(line)
    each = len(view.page_map.letters) / len(letters)
    counts = view.page_map.counts()
    legend = Text(no_wrap=True, overflow="ellipsis")
    for letter, name in NAMES.items():
        if letter in counts:
            legend.append(_MARKS[letter], _STYLES[letter])
            legend.append(f" {name} {format_size(counts[letter] * HUGE_PAGE_BYTES)}   ")
    legend.append(f"a mark is {format_size(each * HUGE_PAGE_BYTES)}", "dim")
    origin = "" if view.line.seen.is_ours else "by the page tables of its process, since this look at it began"
    return [*lines, legend, Text(origin, "dim")]


def cells_of(letters: bytes | bytearray, cells_max: int) -> str:
    """As many letters as there are cells for, each the most frequent of those that it stands for."""
    each = -(-len(letters) // cells_max)
    numbers = np.frombuffer(letters, np.uint8)
    starts = np.arange(0, len(numbers), each)
    kinds = [ord(letter) for letter in NAMES]
    counts = np.stack([np.add.reduceat(numbers == kind, starts, dtype=np.int64) for kind in kinds])
    return "".join(chr(kinds[index]) for index in counts.argmax(axis=0))
