"""Notification with a bounded array for each vCPU (S3; Nitesh Lal's v8): a full array drops hints.

The free path appends each free block of at least the order to the freeing vCPU's array. At a threshold the worker runs,
without delay, and takes the hints out as it isolates their blocks. While the host is slow the arrays fill up, and from
then on hints are dropped: those blocks stay with the host until they are freed once more. Dropped hints and their pages
are counted (DROPPED_HINTS, DROPPED_PAGES).

What is free when it starts is found by one sweep over all frames; it has no hints.
"""

from typing import ClassVar

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import NR_VCPUS, RECORD_HINT_ARRAYS
from pagetide.guest.reporting.hint_arrays import HintArrays, Sweep
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.settings import ReportingSettings, Wake
from pagetide.guest.reporting.switch import switch_on


class NotifyArray(Passes):
    """Takes the hints that the free path recorded; see the head of this file."""

    drops_hints: ClassVar[bool] = True
    own_delay_s: ClassVar[float] = 0.0
    own_wake: ClassVar[Wake] = "threshold"

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        super().__init__(zone, settings)
        self._hints = HintArrays(zone, self._out)
        self._sweep = Sweep(zone, self._out)

    @property
    def leftover_blocks_max(self) -> int:
        """What is below the threshold in each array."""
        return super().leftover_blocks_max * int(self._zone.words[NR_VCPUS])

    def start(self, now_s: float) -> None:
        """Have the free path record hints, and request a first pass, which sweeps."""
        switch_on(self._zone, self._settings, recording=RECORD_HINT_ARRAYS, wake=self.own_wake)
        self._begin_sweep()
        self._schedule.after_delay(now_s)

    def _begin_sweep(self) -> None:
        self._sweep.begin()

    def _begin(self) -> None:
        self._sweep.begin_again()

    def _fill(self) -> None:
        self._sweep.fill()
        if self._sweep.over:
            self._use_hints()

    def _use_hints(self) -> int:
        return self._hints.fill()

    def _left(self) -> bool:
        return super()._left() or not self._sweep.over
