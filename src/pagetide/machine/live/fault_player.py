"""Plays the faults of a live run when the stream's clock says so, in a thread of its own.

The guest's process keeps that clock and plays the guest's faults. The starting process hears of it (ClockStarted) and
plays the host's.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from pagetide.machine.faults import Fault
from pagetide.machine.messages import ClockStarted

SLICE_S = 0.02
"""A slow host runs for a part of each such slice, and is stopped for the rest."""


class FaultPlayer:
    """Begins and ends faults in time. Use as a context manager, or call `close`; faults that are on then end.

    Attributes:
        failure: a sentence without a full stop once a fault could not be begun or ended, after which none is played: a
            run that goes on without its faults is not the run that was asked for.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        begin: Callable[[Fault], None],
        end: Callable[[Fault], None],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Take faults in the order of their beginnings; all functions are called in the player's thread.

        Args:
            faults: what to play.
            begin: begins one.
            end: ends one.
            on_failure: called once when one of these raised; `failure` says why.
        """
        self.failure: str | None = None
        self._on_failure = on_failure
        self._waiting, self._begin, self._end = list(faults), begin, end
        self._on: list[tuple[float, Fault]] = []
        self._clock: ClockStarted | None = None
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._play, name="faults")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the faults that are on, and play no more; a second call does nothing."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()

    def clock_started(self, clock: ClockStarted) -> None:
        """The stream's clock goes on."""
        with self._changed:
            self._clock = clock
            self._changed.notify()

    def _play(self) -> None:
        self._guarded(self._play_on)
        for _, fault in self._on:
            self._guarded(partial(self._end, fault))

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do it; what it raises ends the playing, since nobody would notice a thread that died."""
        try:
            act()
        except Exception as error:
            if self.failure is None:
                self.failure = f"a fault could not be played: {error or type(error).__name__}"
                self._on_failure()

    def _play_on(self) -> None:
        while True:
            with self._changed:
                next_s = self._next_s()
                if not self._over and (next_s is None or next_s > time.monotonic()):
                    self._changed.wait(None if next_s is None else max(0.0, next_s - time.monotonic()))
                if self._over:
                    break
            self._act(time.monotonic())

    def _next_s(self) -> float | None:
        """When there is something to do, as far as the clock tells."""
        begins_s = self._begins_s()
        times_s = [ends_s for ends_s, _ in self._on] + ([] if begins_s is None else [begins_s])
        return min(times_s, default=None)

    def _begins_s(self) -> float | None:
        """When the next fault begins; None if the clock stands still before that, or there is no other."""
        clock = self._clock
        if clock is None or not self._waiting or self._waiting[0].start_s > clock.until_s:
            return None
        return clock.at_s + max(0.0, self._waiting[0].start_s - clock.stream_s)

    def _act(self, now_s: float) -> None:
        for ends_s, fault in list(self._on):
            if ends_s <= now_s:
                self._on.remove((ends_s, fault))
                self._end(fault)
        while (begins_s := self._begins_s()) is not None and begins_s <= now_s:
            fault = self._waiting.pop(0)
            self._on.append((now_s + fault.for_s, fault))
            self._begin(fault)


class SignalledProcess:
    """A process that is stopped, or slowed down, by signals."""

    def __init__(self, send: Callable[[int], None]) -> None:
        """Take what sends a signal to it."""
        self._send = send
        self._fast = threading.Event()
        self._slowing: threading.Thread | None = None
        self._error: Exception | None = None

    def begin(self, fault: Fault) -> None:
        """Stop it, or slow it down."""
        if fault.kind == "stop":
            self._send(signal.SIGSTOP)
            return
        assert fault.kind == "slow"
        self._fast.clear()
        self._slowing = threading.Thread(target=self._slow, args=(fault.factor,), name="slow host")
        self._slowing.start()

    def end(self, fault: Fault) -> None:
        """Let it run again.

        Raises:
            Exception: it was not slow all the time, since a signal could not be sent.
        """
        if self._slowing is not None:
            self._fast.set()
            self._slowing.join()
            self._slowing = None
        self._send(signal.SIGCONT)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _slow(self, factor: float) -> None:
        runs_s = SLICE_S / factor
        try:
            while not self._fast.is_set():
                self._send(signal.SIGSTOP)
                self._fast.wait(SLICE_S - runs_s)
                self._send(signal.SIGCONT)
                self._fast.wait(runs_s)
        except Exception as error:  # `end` raises it
            self._error = error
