"""Virtual time: what happens next, and the tasks that wait for it.

A task is a generator. To wait it yields a Signal, or None, and a time: it goes on when someone notifies the signal or
when the time comes, whatever is first. Everything is ordered by time and then by the order in which it was asked for,
so a run is the same each time. Times are picoseconds.
"""

import heapq
from collections.abc import Callable, Generator

from pagetide.machine.costs import PS_PER_S

NEVER_PS = 1 << 62
"""Later than anything."""


class Signal:
    """What tasks wait for; a notification that nobody waits for is forgotten."""

    def __init__(self, loop: "Loop") -> None:
        """Belong to this loop."""
        self._loop = loop
        self.waiting: dict[_Resumption, None] = {}

    def notify(self) -> None:
        """Let every task go on that waits now, in the order in which they came."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, {}
        for resumption in waiting:
            self._loop.at(self._loop.now_ps, resumption)

    def resume(self) -> None:
        """The same, at once."""
        for resumption in [*self.waiting]:
            resumption()


class Doorbell:
    """A signal for one task that is not forgotten, as an eventfd; it is rung by an event, and not by a task."""

    def __init__(self, loop: "Loop") -> None:
        """Belong to this loop; it has not rung."""
        self._signal = Signal(loop)
        self._rung = False

    def ring(self) -> None:
        """Let the task go on, now or when it next waits."""
        self._rung = True
        self._signal.resume()

    def wait(self, until_ps: int = NEVER_PS) -> "Task":
        """Wait until it rings or has rung, or until this time."""
        if not self._rung:
            yield self._signal, until_ps
        self._rung = False


Wait = tuple[Signal | None, int]
"""What a task yields."""

Task = Generator[Wait, None, None]
"""What runs in simulated time."""


class _Resumption:
    """One wait of a task: it goes on once, whatever of the two comes first."""

    __slots__ = ("_loop", "_over", "_signal", "_task")

    def __init__(self, loop: "Loop", task: Task, signal: Signal | None) -> None:
        self._loop, self._task, self._signal = loop, task, signal
        self._over = False

    def __call__(self) -> None:
        if not self._over:
            self._over = True
            if self._signal is not None:
                self._signal.waiting.pop(self, None)
            self._loop.resume(self._task)


class Loop:
    """The clock and what is to come.

    Attributes:
        now_ps: the time.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        self.now_ps = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def now_s(self) -> float:
        """The time in seconds."""
        return self.now_ps / PS_PER_S

    @property
    def next_ps(self) -> int:
        """When something happens next; NEVER_PS if nothing does."""
        return self._events[0][0] if self._events else NEVER_PS

    def at(self, time_ps: int, act: Callable[[], None]) -> None:
        """Have something happen then."""
        assert time_ps >= self.now_ps, "nothing happens in the past"
        self._count += 1
        heapq.heappush(self._events, (time_ps, self._count, act))

    def step(self) -> None:
        """Move the clock to what happens next, and let it happen."""
        self.now_ps, _, act = heapq.heappop(self._events)
        act()

    def resume(self, task: Task) -> None:
        """Run a task up to its next wait, or a new one up to its first."""
        wait = next(task, None)
        if wait is None:
            return
        signal, until_ps = wait
        resumption = _Resumption(self, task, signal)
        if signal is not None:
            signal.waiting[resumption] = None
        if until_ps < NEVER_PS:
            self.at(max(until_ps, self.now_ps), resumption)

    def sleep(self, time_ps: int) -> Task:
        """Wait for so long."""
        yield None, self.now_ps + time_ps

    def wait_for(self, signal: Signal, holds: Callable[[], bool]) -> Task:
        """Wait until something holds, looked at whenever the signal is notified."""
        while not holds():
            yield signal, NEVER_PS
