"""Hildenbrand's exception mode (S4): notifications, and when too many of them were dropped, one scan.

As `notify-array`, until more than `drop_share` of the hints since the last scan was dropped. Then one sweep over all
frames finds every free block that is not reported, hint or no hint, and afterwards hints are what is reported again.
"""

from pagetide.guest.allocator.isolate import BLOCKED
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import DROPPED_HINTS
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.designs.notify_array import NotifyArray
from pagetide.guest.reporting.settings import ReportingSettings


class Hybrid(NotifyArray):
    """Hints, and a sweep when they were dropped; see the head of this file.

    Attributes:
        sweeps: how many times it began to go over the zone.
    """

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        super().__init__(zone, settings)
        self.sweeps = 0
        self._dropped_before = self._used = self._used_before = 0

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """As for every design; hints of a batch that failed will come again, and count then."""
        if not reported:
            self._used = self._used_before
        super().done(batch, reported, now_s)

    def _fill(self) -> None:
        self._used_before = self._used
        super()._fill()
        if not self._out.filled and not self._out.steps[BLOCKED] and self._too_many_dropped():
            self._begin_sweep()
            super()._fill()

    def _use_hints(self) -> int:
        used = super()._use_hints()
        self._used += used
        return used

    def _too_many_dropped(self) -> bool:
        dropped = int(self._zone.words[DROPPED_HINTS]) - self._dropped_before
        return dropped > self._settings.drop_share * (dropped + self._used)

    def _begin_sweep(self) -> None:
        """From here on a dropped hint is news: what was dropped before will be found."""
        self.sweeps += 1
        self._dropped_before = int(self._zone.words[DROPPED_HINTS])
        self._used = self._used_before = 0
        super()._begin_sweep()
