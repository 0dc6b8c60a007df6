"""The thread that looks, so that keys and the terminal never wait for the daemon or the kernel."""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pagetide.operate.watch.all_vms import Look, Watching
from pagetide.operate.watch.guest_map import GuestMap, MapError, Pace, source_of
from pagetide.operate.watch.seen import Seen

FAILED_S = 1.0
"""How long to wait at least where there was no map."""

ReadMap = tuple[str, GuestMap | None, str]
"""A VM's name with its map, or with why there is none."""

Read = Look | ReadMap
"""What is read."""


class Reader:
    """Looks again and again, and reads the map of one VM meanwhile. Use as a context manager.

    Attributes:
        found: what was read, to be taken out.
    """

    found: queue.SimpleQueue[Read]

    def __init__(self, watching: Watching, control: Path, interval_s: float, on_found: Callable[[], None]) -> None:
        """Know where to look, how often, and whom to tell; nothing is read yet."""
        self.found = queue.SimpleQueue()
        self._watching, self._control = watching, control
        self._interval_s, self._on_found = interval_s, on_found
        self._wanted: Seen | None = None
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()

    def want_map(self, seen: Seen | None) -> None:
        """Read this VM's map from now on, or none."""
        with self._changed:
            if _who(seen) != _who(self._wanted):
                self._wanted = seen
                self._changed.notify()

    def _run(self) -> None:
        look_s = 0.0
        reading: MapReading | None = None
        pace = Pace(time.monotonic())
        while True:
            now_s = time.monotonic()
            if now_s >= look_s:
                look_s = now_s + self._interval_s
                self._tell(self._watching.look())
            with self._changed:
                if self._over:
                    return
                wanted = self._wanted
            if wanted is None or reading is None or _who(reading.vm) != _who(wanted):
                reading = None if wanted is None else MapReading(wanted, self._control, pace)
            if reading is not None and reading.due_s <= time.monotonic():
                self._tell(reading.go_on())
            until_s = look_s if reading is None else min(look_s, reading.due_s)
            with self._changed:
                if not self._over and _who(self._wanted) == _who(wanted):
                    self._changed.wait(max(0.0, until_s - time.monotonic()))

    def _tell(self, found: Read) -> None:
        self.found.put(found)
        self._on_found()


def _who(seen: Seen | None) -> object:
    """What says that it is the same VM with the same account."""
    return None if seen is None else (seen.name, seen.pid, seen.account)


class MapReading:
    """One VM's map, read a piece at a time.

    Attributes:
        vm: which.
        due_s: when the next piece may be read.
    """

    vm: Seen
    due_s: float

    def __init__(self, vm: Seen, control: Path, pace: Pace, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Have read nothing yet; the pace is that of all who are read one after the other."""
        self.vm = vm
        self.due_s = 0.0
        self._control, self._pace, self._clock_s = control, pace, clock_s
        self._map: GuestMap | None = None

    def go_on(self) -> ReadMap:
        """Read a piece."""
        start_s = self._clock_s()
        trouble = ""
        try:
            if self._map is None:
                self._map = GuestMap(source_of(self.vm, self._control))
            self._map.read()
        except MapError as error:
            self._map, trouble = None, str(error)
        end_s = self._clock_s()
        self.due_s = end_s + max(self._pace.rest_s(self.vm, end_s - start_s, end_s), FAILED_S if trouble else 0.0)
        return self.vm.name, self._map, trouble
