"""What all who act in a shift share: the daemon, the timetable, what was done how often, and what was injected."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagetide.operate.host.control import ask
from soak.operators.timetable import Fault, Timetable

SETTLE_MAX_S = 60.0


@dataclass
class Injected:
    """A fault that was injected. Times are the wall clock's, in seconds; 0.0 as long as it has not happened.

    Attributes:
        fault: which.
        guest: who has it.
        due_s: when it is to be, on the monotonic clock.
        began_s: when it began.
        ended_s: when it was mended.
    """

    fault: Fault
    guest: str
    due_s: float
    began_s: float = 0.0
    ended_s: float = 0.0

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Note when it begins and ends."""
        self.began_s = self.ended_s = time.time()
        yield
        self.ended_s = time.time()


@dataclass
class Yard:
    """One daemon with what is around it.

    Attributes:
        folder: for files.
        control: the daemon's control socket.
        timetable: when what happens.
        interval_s: between two scrapes.
        done: what was done, how often.
    """

    folder: Path
    control: Path
    timetable: Timetable
    interval_s: float
    done: Counter[str]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Count something that was done."""
        with self._lock:
            self.done[what] += 1

    def socket(self, guest: str) -> Path:
        """Where a guest connects."""
        return self.folder / "guests" / f"{guest}.sock"

    def ask(self, command: str, guest: str, **more: object) -> dict[str, Any]:
        """Have the daemon do something.

        Raises:
            OSError: it does not answer, or refuses.
        """
        answer = ask(self.control, {"command": command, "guest": guest, **more})
        if answer["error"] is not None:
            raise ConnectionAbortedError(f"{command} {guest}: {answer['error']}")
        return answer

    def few_scrapes(self) -> None:
        """Wait until Prometheus has seen how things are: a counter has to be known before it can grow."""
        self.timetable.wait(4 * max(self.interval_s, 1.0))


class Actor:
    """Somebody who acts in a thread of his own until the shift is over.

    Attributes:
        name: the guest's.
    """

    name: str

    def __init__(self, name: str, yard: Yard) -> None:
        """Do nothing yet."""
        self.name, self.yard = name, yard
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> str | None:
        """Wait for the end; what went wrong."""
        self._thread.join(timeout_s)
        return "it does not come to its end" if self._thread.is_alive() else self.failure()

    def kill(self) -> None:
        """End what would outlive the thread; for who does not come to an end."""

    def failure(self) -> str | None:
        """What has gone wrong so far."""
        return None if self._error is None else f"{type(self._error).__name__}: {self._error}"

    def act(self) -> None:
        """What is done in the thread."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self.act()
        except BaseException as error:
            self._error = error
