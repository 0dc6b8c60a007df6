"""How a run is watched: a live picture in a terminal, plain lines anywhere else."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pagetide.lab.chart import GUEST_MARK, HOST_MARKS, draw_chart
from pagetide.machine.result import Sample
from pagetide.units import format_size

_FRAMES_PER_S = 8
_LINE_EVERY_S = 1.0
_ROWS = 12
_COLUMNS_MAX = 110
_WINDOW_S = 20.0


class View(Protocol):
    """An observer of a run that is shown to a person."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stage(self, text: str) -> None:
        """Something new begins."""

    def sample(self, sample: Sample) -> None:
        """The state of things."""

    def warning(self, text: str) -> None:
        """Something is not as it should be."""


def chart_text(samples: list[Sample], ram_bytes: int, columns: int, from_s: float, to_s: float) -> Text:
    """The chart of these samples, coloured for a terminal that has colours."""
    lines = draw_chart(
        [sample.t_s for sample in samples],
        [sample.guest_used_bytes for sample in samples],
        [sample.host_resident_bytes for sample in samples],
        columns=min(columns, _COLUMNS_MAX),
        rows=_ROWS,
        from_s=from_s,
        to_s=to_s,
        top_bytes=ram_bytes,
    )
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    text.highlight_regex(f"[{HOST_MARKS.strip()}]+", "blue")
    text.highlight_regex(f"{GUEST_MARK}+", "bold yellow")
    return text


class LiveView:
    """A picture that is redrawn a few times a second, and the whole run's chart at the end."""

    def __init__(self, console: Console, ram_bytes: int) -> None:
        """Draw on this console."""
        self._console, self._ram_bytes = console, ram_bytes
        self._samples: list[Sample] = []
        self._stage = ""
        self._start_s = self._drawn_s = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        last_s = self._samples[-1].t_s if self._samples else 0.0
        self._live.update(
            chart_text(self._samples, self._ram_bytes, self._console.width, 0.0, max(last_s, 1.0))
            if self._samples
            else Text(""),
            refresh=True,
        )
        self._live.__exit__(kind, error, trace)

    def stage(self, text: str) -> None:
        """Show the new stage at once."""
        self._stage = text
        self._draw()

    def sample(self, sample: Sample) -> None:
        """Keep the sample, and redraw when it is time."""
        self._samples.append(sample)
        if time.monotonic() - self._drawn_s >= 1 / _FRAMES_PER_S:
            self._draw()

    def warning(self, text: str) -> None:
        """Show the warning above the picture."""
        self._live.console.print(Text(text, style="yellow"))

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        headline = Text.assemble((self._stage, "bold"), f"   {self._drawn_s - self._start_s:.1f} s")
        if not self._samples:
            self._live.update(headline, refresh=True)
            return
        last = self._samples[-1]
        to_s = max(last.t_s, _WINDOW_S)
        window = [sample for sample in self._samples if sample.t_s >= to_s - _WINDOW_S - 1]
        picture = chart_text(window, self._ram_bytes, self._console.width, to_s - _WINDOW_S, to_s)
        self._live.update(Group(headline, picture, Text(""), self._bars(last)), refresh=True)

    def _bars(self, last: Sample) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        width = max(10, min(self._console.width, _COLUMNS_MAX) - 42)
        for name, value, style in (
            ("guest uses", last.guest_used_bytes, "bold yellow"),
            *_free_bars(last),
            ("host holds", last.host_resident_bytes, "blue"),
        ):
            filled = round(width * min(1.0, value / self._ram_bytes))
            table.add_row(f"{name:>18}", Text(f"{format_size(value):>9}"), Text("█" * filled, style=style))
        return table


def _free_bars(last: Sample) -> tuple[tuple[str, int, str], ...]:
    if last.reported_bytes is None:
        return (("free", last.guest_free_bytes, "green"),)
    rest_bytes = max(0, last.guest_free_bytes - last.reported_bytes)
    return ("free, reported", last.reported_bytes, "green"), ("free, not reported", rest_bytes, "red")


class PlainView:
    """A line for each stage, and about one a second of how things are."""

    def __init__(self, console: Console) -> None:
        """Write to this console, which is no terminal."""
        self._console = console
        self._told_s = -_LINE_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind."""

    def stage(self, text: str) -> None:
        """Write the stage."""
        self._line(text)

    def sample(self, sample: Sample) -> None:
        """Write how things are, if the last such line is old enough."""
        if sample.t_s - self._told_s >= _LINE_EVERY_S:
            self._told_s = sample.t_s
            reported = "" if sample.reported_bytes is None else f" (reported {format_size(sample.reported_bytes)})"
            self._line(
                f"{sample.t_s:7.1f} s  guest uses {format_size(sample.guest_used_bytes)}"
                f"  free {format_size(sample.guest_free_bytes)}{reported}"
                f"  host holds {format_size(sample.host_resident_bytes)}"
            )

    def warning(self, text: str) -> None:
        """Write the warning."""
        self._line(f"warning: {text}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)
        self._console.file.flush()
