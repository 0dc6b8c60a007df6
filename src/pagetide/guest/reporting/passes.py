"""What designs have in common: the batch that is out, when a pass is due, and how a pass goes."""

import abc
from typing import ClassVar

import numpy as np

from pagetide.guest.allocator.isolate import BLOCKED, FILLED, STEPS_WORDS, YOUNG, put_back
from pagetide.guest.allocator.request import begin_pass, end_pass, is_requested
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import (
    HINTS,
    IDLE_PASSES,
    PASSES,
    RECORD_HINT_ARRAYS,
    RECORD_HINT_MAP,
    RECORDING,
    WAKE_BLOCKS,
)
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.settings import ReportingSettings, Wake
from pagetide.guest.reporting.switch import reserve_missing_spares, switch_off
from pagetide.virtio.balloon import Queue

_RETRY_S = 0.1
_TIMER_S = 2.0


class Outgoing:
    """The one batch of a design, being filled or out.

    Attributes:
        blocks: int64 array of the design's capacity.
        steps: int64 array, the account that the kernels of isolate.py keep.
        filled: how many blocks are in it.
        given: whether it is out.
    """

    def __init__(self, zone: Zone, capacity: int) -> None:
        """An empty batch of blocks of this zone."""
        assert capacity >= 1
        self.blocks = np.zeros(capacity, np.int64)
        self.steps = np.zeros(STEPS_WORDS, np.int64)
        self.filled = 0
        self.given = False
        self._zone = zone

    def begin(self) -> None:
        """A pass begins: nothing young or blocked has been met."""
        self.steps[:] = 0

    def give(self) -> Batch:
        """Hand out what is filled."""
        assert not self.given
        assert 0 < self.filled <= len(self.blocks)
        self.given = True
        return self.blocks[: self.filled]

    def take_back(self, batch: Batch, reported: bool) -> None:
        """Put the blocks back into the allocator."""
        assert self.given
        assert len(batch) == self.filled
        put_back(self._zone.words, self._zone.pages, batch, len(batch), reported)
        self.given = False
        self.filled = 0


class Schedule:
    """When the next pass is due.

    Attributes:
        due_s: the time, or None while nothing is wanted.
        idle: nothing is wanted, but perhaps by the clock.
    """

    due_s: float | None
    idle: bool

    def __init__(self, settings: ReportingSettings, delay_s: float = 2.0) -> None:
        """Nothing is due; `delay_s` is the design's own delay."""
        self._cool_s = settings.cool_s
        self._by_timer = settings.wake == "timer"
        own_s = _TIMER_S if self._by_timer and delay_s == 0 else delay_s
        self._delay_s = own_s if settings.delay_s is None else settings.delay_s
        self.cancel()

    def cancel(self) -> None:
        """Nothing is due any more."""
        self.due_s, self.idle = None, True

    def after_delay(self, now_s: float) -> None:
        """A pass was requested; one that is due already stays so."""
        if self.due_s is None:
            self.due_s, self.idle = now_s + self._delay_s, False

    def not_before(self, time_s: float) -> None:
        """The pass that was requested has no business before this time."""
        if self.due_s is not None:
            self.due_s = max(self.due_s, time_s)

    def is_due(self, now_s: float) -> bool:
        """Whether a pass may begin or go on."""
        return self.due_s is not None and now_s >= self.due_s

    def pass_ended(self, now_s: float, *, again: bool, young: bool = False, blocked: bool = False) -> None:
        """A pass ended: requested anew, or with blocks left that were too young or could not be isolated."""
        self.cancel()
        self.idle = not (again or young or blocked)
        if young:
            self.due_s = now_s + max(self._delay_s, self._cool_s)
        if blocked:
            self.due_s = now_s + max(self._delay_s, _RETRY_S)
        if again or self._by_timer:
            self.due_s = now_s + self._delay_s


class Passes(abc.ABC):
    """A design that works in passes: it says how to begin one and how to fill the next batch.

    A pass begins when it is due and goes on, batch by batch, until `_fill` finds nothing, or a report fails.
    """

    synchronous: ClassVar[bool] = False
    drops_hints: ClassVar[bool] = False
    own_delay_s: ClassVar[float] = 2.0
    own_wake: ClassVar[Wake] = "merge"
    queue = Queue.REPORTING

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        self._zone, self._settings = zone, settings
        self._schedule = Schedule(settings, self.own_delay_s)
        self._out = Outgoing(zone, settings.capacity)
        self._in_pass = False

    @property
    def leftover_blocks_max(self) -> int:
        """Reportable blocks that it may leave unreported at rest: what is below a threshold."""
        return self._settings.wake_blocks - 1 if (self._settings.wake or self.own_wake) == "threshold" else 0

    @property
    def due_s(self) -> float | None:
        """When the next pass begins, or the present one goes on."""
        return self._schedule.due_s

    @property
    def at_rest(self) -> bool:
        """Whether no pass is wanted, but perhaps by the clock."""
        schedule = self._schedule
        return schedule.idle and (schedule.due_s is None or not is_requested(self._zone.words))

    @abc.abstractmethod
    def start(self, now_s: float) -> None:
        """Switch the zone on, and have the first pass due."""

    def stop(self) -> None:
        """Ask for nothing any more."""
        assert not self._out.given
        switch_off(self._zone)
        self._schedule.cancel()
        self._in_pass = False

    def woken(self, now_s: float) -> None:
        """A pass was requested while there was none: it begins after the delay."""
        self._schedule.after_delay(now_s)

    def next_batch(self, now_s: float) -> Batch | None:
        """Fill the next batch of the pass; None when the pass is over, or none is due."""
        assert not self._out.given, "the batch before was not handed back"
        if not self._schedule.is_due(now_s):
            return None
        begins = not self._in_pass
        if begins:
            begin_pass(self._zone.words)
            self._in_pass = True
            self._out.begin()
            reserve_missing_spares(self._zone, self._settings)
            self._begin()
        self._out.steps[FILLED] = self._out.steps[BLOCKED] = 0
        self._fill()
        if begins:
            self._count_pass()
        if self._out.filled:
            return self._out.give()
        self._end_pass(now_s)
        return None

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Put the batch back, marked if it was reported; a failure ends the pass."""
        self._out.take_back(batch, reported)
        if not reported:
            self._end_pass(now_s)

    def _begin(self) -> None:  # noqa: B027 - most designs have nothing to do here
        """A pass begins."""

    @abc.abstractmethod
    def _fill(self) -> None:
        """Isolate blocks into the batch, and set its `filled`."""

    def _left(self) -> bool:
        """Whether the pass leaves something that nobody else will ask for."""
        return bool(self._out.steps[BLOCKED]) or self._hints_left()

    def _hints_left(self) -> bool:
        """Whether enough hints for a pass came from elsewhere than the free path: from what was put back."""
        words = self._zone.words
        hinted = words[RECORDING] in (RECORD_HINT_MAP, RECORD_HINT_ARRAYS)
        return bool(hinted and words[HINTS] - self._out.steps[YOUNG] >= max(1, words[WAKE_BLOCKS]))

    def _count_pass(self) -> None:
        words = self._zone.words
        words[PASSES] += 1
        if not self._out.filled:
            words[IDLE_PASSES] += 1

    def _end_pass(self, now_s: float) -> None:
        again, left = bool(end_pass(self._zone.words)), self._left()
        self._schedule.pass_ended(now_s, again=again, young=self._out.steps[YOUNG] > 0, blocked=left)
        self._in_pass = False
