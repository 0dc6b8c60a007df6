"""The thread that looks at all guests and keeps what it saw: curves, page maps, what the daemon's log says."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pagetide.operate.watch.all_vms import Look, Watching
from pagetide.operate.watch.guest_map import GuestMap, MapError, Pace, source_of
from pagetide.operate.watch.seen import Seen
from pagetide.operate.web.history import History
from pagetide.operate.web.map_history import EVERY_S, MapHistory
from pagetide.operate.web.told_lines import Event

LOOK_S = 0.5
"""How often to look, at most."""

GUEST_LOOK_S = 0.003
"""Seconds between looks for each guest: one takes the daemon some 30 µs a guest, a hundredth of its time at most."""

WANTED_S = 15.0
"""For so long the map of a guest comes first that somebody has looked at."""

_EVENTS_MAX = 2000


class Recorder:
    """What the page shows. Its thread is the only one that looks; others read what is kept, under its lock.

    Attributes:
        message: the last look, as JSON.
    """

    message: bytes

    def __init__(
        self,
        watching: Watching,
        control: Path,
        *,
        on_look: Callable[[], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know where to look, and whom to tell of each look."""
        self._watching, self._control, self._clock_s, self._on_look = watching, control, clock_s, on_look
        self._lock = threading.Lock()
        self._history, self._maps = History(), MapHistory()
        self._events: deque[Event] = deque(maxlen=_EVENTS_MAX)
        self._look: Look | None = None
        self._reading: dict[str, _MapReading] = {}
        self._wanted: dict[str, float] = {}
        self._map_due_s = self._look_due_s = 0.0
        self._pace = Pace(clock_s())
        self.message = b"{}"

    @property
    def nbytes(self) -> int:
        """What curves and maps take."""
        return self._history.nbytes + self._maps.nbytes

    def run(self, over: threading.Event) -> None:
        """Look again and again until it is over."""
        while not over.wait(self.step()):
            pass

    def step(self) -> float:
        """Do what is due; how long to wait until something is."""
        now_s = self._clock_s()
        if now_s >= self._look_due_s:
            look = self._watching.look()
            self._look_due_s = now_s + max(LOOK_S, GUEST_LOOK_S * len(look.vms))
            self._take(look)
            self._on_look()
        elif now_s >= self._map_due_s:
            self._read_map(now_s)
        return max(0.0, min(self._look_due_s, self._map_due_s) - self._clock_s())

    def note(self, event: Event) -> None:
        """Keep an event."""
        with self._lock:
            self._events.append(event)

    def asked_as(self, guest: str) -> str | None:
        """By what `pagetide why` can be asked of who was there at the last look: of who is not ours by its process."""
        vms = [] if self._look is None else self._look.vms
        seen = next((seen for seen in vms if seen.name == guest), None)
        return None if seen is None else guest if seen.is_ours else str(seen.pid)

    def events(self, guest: str) -> list[Event]:
        """What the log said of a guest, in order."""
        with self._lock:
            return [event for event in self._events if event.guest == guest]

    def curves(self, guest: str, span_s: float) -> dict[str, Any]:
        """As `History.curves`."""
        with self._lock:
            return self._history.curves(guest, span_s)

    def map_at(self, guest: str, t_s: float) -> dict[str, Any] | None:
        """A guest's map at a time, and when there are others; None if there is none yet. It is read first now.

        Of the first one there is what was read so far, the rest not known.
        """
        with self._lock:
            if self.asked_as(guest) is not None:
                self._wanted[guest] = self._clock_s()
            kept = self._maps.at(guest, t_s)
            times = self._maps.times(guest)
        if kept is None:
            reading = self._reading.get(guest)
            return None if reading is None else reading.so_far()
        return _told(kept.t_s, kept.regions, kept.letters, times)

    def _take(self, look: Look) -> None:
        with self._lock:
            self._look = look
            self._history.add(look.t_s, look.vms)
            names = {seen.name for seen in look.vms}
            self._wanted = {name: at_s for name, at_s in self._wanted.items() if name in names}
        self._reading = {name: reading for name, reading in self._reading.items() if name in names}
        self.message = msgspec.json.encode(look)

    def _read_map(self, now_s: float) -> None:
        """Read a piece of the map that is due first; those that somebody looks at come before others."""
        vms = [] if self._look is None else self._look.vms
        due = [(self._due_s(seen, now_s), seen) for seen in vms]
        due = [(due_s, seen) for due_s, seen in due if due_s <= now_s]
        if not due:
            self._map_due_s = now_s + LOOK_S
            return
        _, seen = min(due, key=lambda each: each[0])
        reading = self._reading.setdefault(seen.name, _MapReading(seen))
        start_s = self._clock_s()
        if reading.go_on(seen, self._control, start_s):
            assert reading.page_map is not None
            page_map = reading.page_map
            with self._lock:
                self._maps.add(time.time(), seen.name, tuple(page_map.regions), bytes(page_map.letters))
        end_s = self._clock_s()
        self._map_due_s = end_s + self._pace.rest_s(seen, end_s - start_s, end_s)

    def _due_s(self, seen: Seen, now_s: float) -> float:
        """When a guest's map is due; long ago for one that somebody looks at."""
        reading = self._reading.get(seen.name)
        due_s = 0.0 if reading is None else reading.due_s
        is_wanted = now_s - self._wanted.get(seen.name, -WANTED_S) < WANTED_S
        return due_s - 1e9 if is_wanted and due_s <= now_s else due_s


class _MapReading:
    """A guest's map, read a piece at a time."""

    def __init__(self, seen: Seen) -> None:
        self.due_s = 0.0
        self.page_map: GuestMap | None = None
        self._whose = _whose(seen)

    def go_on(self, seen: Seen, control: Path, now_s: float) -> bool:
        """Read a piece; whether the map is whole."""
        if self._whose != _whose(seen):
            self.page_map, self._whose = None, _whose(seen)
        try:
            if self.page_map is None:
                self.page_map = GuestMap(source_of(seen, control))
            is_whole = self.page_map.read()
        except MapError:
            self.page_map, self.due_s = None, now_s + EVERY_S
            return False
        if is_whole:
            self.due_s = now_s + EVERY_S
        return is_whole

    def so_far(self) -> dict[str, Any] | None:
        """What was read, as the map of now; None if nothing was."""
        page_map = self.page_map
        if page_map is None or not page_map.letters:
            return None
        now_s = time.time()
        return _told(now_s, page_map.regions, page_map.letters.decode("ascii"), [now_s])


def _told(t_s: float, regions: Sequence[tuple[int, int, int]], letters: str, times: list[float]) -> dict[str, Any]:
    return {"t_s": t_s, "regions": regions, "states": run_lengths(letters), "times": times}


def _whose(seen: Seen) -> tuple[bool, int | None]:
    """What changes when another VM has its name: its account with the daemon, or its process."""
    return seen.is_ours, seen.account if seen.is_ours else seen.pid


def run_lengths(letters: str) -> list[tuple[str, int]]:
    """Each letter with how many of it follow one another."""
    runs: list[tuple[str, int]] = []
    start = 0
    for place in range(1, len(letters) + 1):
        if place == len(letters) or letters[place] != letters[start]:
            runs.append((letters[start], place - start))
            start = place
    return runs
