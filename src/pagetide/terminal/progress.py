"""How far a grid is, and how long it may still take: a bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_LINE_EVERY_S = 5.0


class GridProgress:
    """Counts cells as they end, on standard error."""

    def __init__(
        self,
        console: Console,
        cells: int,
        *,
        live: bool,
        what: str = "runs",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            console: where to show it.
            cells: how many are to be run.
            live: whether to redraw a bar; otherwise lines are written.
            what: what a cell is, in the plural.
            clock: tells the time in seconds.
        """
        self._console, self._cells, self._what, self._clock = console, cells, what, clock
        self._done = self._failed = 0
        self._start_s = clock()
        self._told_s: float | None = None
        self._told = ""
        self._bar = None
        if live:
            self._bar = Progress(
                BarColumn(bar_width=None), TextColumn("{task.description}"), console=console, auto_refresh=False
            )
            self._task = self._bar.add_task("", total=cells)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        """Write how far it came."""
        if self._bar is not None:
            self.show()
            self._bar.stop()
        else:
            self._line()

    def ended(self, *, failed: bool = False, cells: int = 1) -> None:
        """Another cell is done, or so many."""
        self._done += cells
        self._failed += failed

    def show(self) -> None:
        """Bring the bar up to date; or write a line once something is done, and whenever the last one is old."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self.text(), refresh=True)
        elif (self._done and self._told_s is None) or self._is_old():
            self._line()

    def _is_old(self) -> bool:
        """Whether the last line is; with none yet, whether workers take long to load and compile."""
        return self._clock() - (self._start_s if self._told_s is None else self._told_s) >= _LINE_EVERY_S

    def note(self, text: str) -> None:
        """Say what is out of the ordinary, above the bar."""
        self._console.print(text, soft_wrap=True)

    def text(self) -> str:
        """How far it is: `120 of 540 runs, 2 failed, 14 s so far, about 50 s left`."""
        so_far_s = self._clock() - self._start_s
        parts = [f"{self._done} of {self._cells} {self._what}"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        parts.append(f"{duration(so_far_s)} so far")
        if 0 < self._done < self._cells:
            parts.append(f"about {duration(so_far_s / self._done * (self._cells - self._done))} left")
        return ", ".join(parts)

    def _line(self) -> None:
        self._told_s = self._clock()
        text = self.text()
        if text != self._told:
            self._console.print(text, soft_wrap=True)
        self._told = text


def duration(length_s: float) -> str:
    """Seconds as people say them: `12 s`, `3 min 05 s`, `2 h 10 min`."""
    whole_s = round(length_s)
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 3600:
        return f"{whole_s // 60} min {whole_s % 60:02} s"
    return f"{whole_s // 3600} h {whole_s % 3600 // 60:02} min"
