"""How a run is watched: a live picture in a terminal, plain lines anywhere else."""

import bisect
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pagetide.machine.result import Sample
from pagetide.terminal.chart import GUEST_MARK, HOST_MARKS, draw_chart
from pagetide.units import format_size

_FRAMES_PER_S = 8
_LINE_EVERY_S = 1.0
_LINES_BEFORE_FEWER = 60
_ROWS = 12
_LINES_BESIDE_ROWS = 9
_COLUMNS_MAX = 110
_WINDOW_S = 20.0


def chart_text(
    samples: list[Sample], ram_bytes: int, columns: int, from_s: float, to_s: float, rows: int = _ROWS
) -> Text:
    """The chart of these samples, coloured for a terminal that has colours."""
    lines = draw_chart(
        [sample.t_s for sample in samples],
        [sample.guest_used_bytes for sample in samples],
        [sample.host_resident_bytes for sample in samples],
        columns=min(columns, _COLUMNS_MAX),
        rows=rows,
        from_s=from_s,
        to_s=to_s,
        top_bytes=ram_bytes,
    )
    text = Text("\n".join(lines), no_wrap=True, overflow="crop")
    text.highlight_regex(f"[{HOST_MARKS.strip()}]+", "blue")
    text.highlight_regex(f"{GUEST_MARK}+", "bold yellow")
    return text


class LiveView:
    """A picture that is redrawn a few times a second, and the whole run's chart at the end.

    A thread draws, so that the clock on the screen goes on while the run has nothing to say (kernels compile, say),
    and taking a sample never waits for the terminal.
    """

    def __init__(self, console: Console, ram_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw on this console, the time since now by this clock (seconds) in the headline."""
        self._console, self._ram_bytes, self._clock = console, ram_bytes, clock
        self._samples: list[Sample] = []
        self._stage = ""
        self._start_s = clock()
        self._size = console.size
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._drawing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        try:
            self._thread.join()
            last_s = self._samples[-1].t_s if self._samples else 0.0
            whole = chart_text(self._samples, self._ram_bytes, self._console.width, 0.0, max(last_s, 1.0))
            self._draw(whole if self._samples else Text(""))
        finally:
            self._live.stop()  # the cursor is hidden until then

    def stage(self, text: str) -> None:
        """Show the new stage at once."""
        self._stage = text
        self._draw(self._picture())

    def sample(self, sample: Sample) -> None:
        """Keep the sample for the next picture."""
        self._samples.append(sample)

    def warning(self, text: str) -> None:
        """Show the warning above the picture."""
        self._live.console.print(Text(text, style="yellow"))

    def _keep_drawing(self) -> None:
        while not self._over.wait(1 / _FRAMES_PER_S):
            self._draw(self._picture())

    def _draw(self, picture: RenderableType) -> None:
        with self._drawing:
            if self._console.size != self._size:
                # The terminal has wrapped the old picture's lines anew: where it began is not known.
                self._size = self._console.size
                self._console.clear()
            self._live.update(picture, refresh=True)

    def _picture(self) -> RenderableType:
        headline = Text.assemble((self._stage, "bold"), f"   {self._clock() - self._start_s:.1f} s", no_wrap=True)
        if not self._samples:
            return headline
        last = self._samples[-1]
        to_s = max(last.t_s, _WINDOW_S)
        first = bisect.bisect_left(self._samples, to_s - _WINDOW_S - 1, key=lambda sample: sample.t_s)
        rows = min(_ROWS, max(1, self._console.height - _LINES_BESIDE_ROWS))
        chart = chart_text(self._samples[first:], self._ram_bytes, self._console.width, to_s - _WINDOW_S, to_s, rows)
        return Group(headline, chart, Text(""), self._bars(last))

    def _bars(self, last: Sample) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        width = max(10, min(self._console.width, _COLUMNS_MAX) - 31)
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
    """A line for each stage, and about one a second of how things are; fewer after a minute."""

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
        """Write how things are, if the last such line is old enough; less often the longer the run is."""
        if sample.t_s - self._told_s >= max(_LINE_EVERY_S, sample.t_s / _LINES_BEFORE_FEWER):
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
