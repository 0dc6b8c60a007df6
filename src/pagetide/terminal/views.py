"""How a run is watched: a live picture in a terminal, plain lines anywhere else."""

import bisect
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pagetide.machine.measure import Waiting
from pagetide.machine.result import Sample
from pagetide.terminal.live_picture import WINDOW_S, Recent, chart_text, draw_recent
from pagetide.units import format_size

_FRAMES_PER_S = 8
_LINE_EVERY_S = 1.0
_LINES_BEFORE_FEWER = 60
_STAYS_SHARE = 0.01
"""What may stay with the host for good, of RAM, without being shown as waiting."""


class LiveView:
    """A picture that is redrawn a few times a second, and the whole run's chart at the end.

    A thread draws, so that the clock on the screen goes on while the run has nothing to say (kernels compile, say),
    and taking a sample never waits for the terminal.
    """

    def __init__(self, console: Console, ram_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw on this console, the time since now by this clock (seconds) in the headline."""
        self._console, self._ram_bytes, self._clock = console, ram_bytes, clock
        self._samples: list[Sample] = []
        self._waiting = Waiting(round(_STAYS_SHARE * ram_bytes))
        self._waited_s: list[float] = []
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
        waited_s = self._waiting.seen(sample.t_s, sample.guest_used_bytes, sample.host_resident_bytes)
        self._waited_s.append(waited_s)
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
        seen = len(self._samples)  # the run's thread adds to all while this one draws
        if not seen:
            return headline
        since_s = self._samples[seen - 1].t_s - WINDOW_S - 1
        first = bisect.bisect_left(self._samples, since_s, hi=seen, key=lambda sample: sample.t_s)
        recent = Recent(self._samples[first:seen], self._waited_s[first:seen], self._ram_bytes)
        return Group(headline, draw_recent(recent, self._console.width, self._console.height - 1))


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
