"""Notification with a bitmap for each zone (S3; Nitesh Lal's v10 to v12).

The free path sets a bit for each free block of at least the order, under the zone lock. At a threshold of 16 bits the
worker runs, without delay: it takes bit after bit, isolates what is still free there, and reports full batches. Below
the threshold nothing happens: up to 15 blocks stay unreported for good.

Divergences: a bit is cleared only once its block was isolated or is no longer free (v10 cleared first, and lost the
block when it could not be isolated); and what a split leaves of an unreported block gets bits of its own.
"""

from typing import ClassVar

from pagetide.guest.allocator.by_position import record_all_free, take_candidates
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, LEFT, PASS_OVER_MAX
from pagetide.guest.allocator.zone_layout import RECORD_HINT_MAP
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.settings import Wake
from pagetide.guest.reporting.switch import switch_on


class Notify(Passes):
    """Takes the bits that the free path set; see the head of this file."""

    own_delay_s: ClassVar[float] = 0.0
    own_wake: ClassVar[Wake] = "threshold"

    def start(self, now_s: float) -> None:
        """Have the free path set bits, set them for what is free already, and request a first pass."""
        switch_on(self._zone, self._settings, recording=RECORD_HINT_MAP, wake=self.own_wake)
        record_all_free(self._zone)
        self._schedule.after_delay(now_s)

    def _begin(self) -> None:
        self._position = 0

    def _fill(self) -> None:
        words, pages, out = self._zone.words, self._zone.pages, self._out
        while self._position >= 0 and not out.steps[BLOCKED] and out.steps[FILLED] < len(out.blocks):
            out.steps[LEFT] = PASS_OVER_MAX
            self._position = int(take_candidates(words, pages, self._position, out.blocks, out.steps))
        out.filled = int(out.steps[FILLED])
