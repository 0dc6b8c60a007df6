"""Synchronous reporting (S5): the vCPU whose free fills a batch reports it itself, and waits for the host.

The free path appends each free block of at least the order to the freeing vCPU's array. With a batch full of hints the
vCPU stops, isolates what they name, and reports it before it goes on. No worker competes for the lock; the price is
that the vCPU stands still for as long as the host does. What does not fill a batch stays unreported.

What is free when it starts is found by one sweep over all frames, which the worker reports. A vCPU that fails to report
goes on; then the worker tries again, and sweeps for what had no room in an array meanwhile.
"""

from typing import ClassVar

from pagetide.guest.allocator.isolate import BLOCKED, FILLED
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import DROPPED_HINTS, NR_VCPUS, RECORD_HINT_ARRAYS
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.hint_arrays import HintArrays, Sweep
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on


class Sync(Passes):
    """Lets vCPUs report; see the head of this file."""

    synchronous: ClassVar[bool] = True
    own_delay_s: ClassVar[float] = 0.0

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        super().__init__(zone, settings)
        self._hints = HintArrays(zone, self._out)
        self._sweep = Sweep(zone, self._out)
        self._failed = False
        self._dropped_before = int(zone.words[DROPPED_HINTS])

    @property
    def leftover_blocks_max(self) -> int:
        """What does not fill a batch in each array."""
        return (self._settings.capacity - 1) * int(self._zone.words[NR_VCPUS])

    def start(self, now_s: float) -> None:
        """Have the free path record hints, and have the worker sweep."""
        switch_on(
            self._zone,
            self._settings,
            recording=RECORD_HINT_ARRAYS,
            sync_hints=self._settings.capacity,
        )
        self._sweep.begin()
        self._schedule.after_delay(now_s)

    def next_batch(self, now_s: float) -> Batch | None:
        """Isolate what full arrays name, at any time; when a pass is due, also what a sweep finds."""
        assert not self._out.given, "the batch before was not handed back"
        self._sweep_for_dropped(now_s)
        if self._failed:  # the vCPU goes on; it tries again after its next operation, and the worker before long
            self._failed = False
            return None
        self._out.steps[FILLED] = self._out.steps[BLOCKED] = 0
        self._hints.fill(self._settings.capacity)
        if self._out.filled:
            return self._out.give()
        return super().next_batch(now_s)

    def _sweep_for_dropped(self, now_s: float) -> None:
        dropped = int(self._zone.words[DROPPED_HINTS])
        if dropped != self._dropped_before:
            self._dropped_before = dropped
            self._sweep.begin()
            self._schedule.after_delay(now_s)

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Put the batch back, marked if it was reported; otherwise its blocks are hints again."""
        self._failed = not reported
        super().done(batch, reported, now_s)

    def _fill(self) -> None:
        self._sweep.fill()

    def _left(self) -> bool:
        """Whether the worker is to go on: with the sweep, or where a vCPU failed that may not come by again."""
        return not self._sweep.over or self._hints.full(self._settings.capacity)
