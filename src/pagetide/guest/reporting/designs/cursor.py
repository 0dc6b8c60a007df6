"""S2 taken seriously: given the last reported block, the next unreported free one, by position.

The free path keeps a map of the unreported free blocks (candidates.py): one bit a block, set and cleared where the
block joins and leaves its free list, in a few stores whatever is free. A pass takes them in the order of their
addresses, from where the one before stopped, once round the zone. So

- progress is guaranteed whatever the lists do: the cursor moves over positions, and those do not move;
- the cost is that of what is unreported, not of what is free: reported blocks are never looked at;
- neighbours travel together, which the host then discards as one range: small orders cost it little more than large.

The mark survives splits and merges of reported memory (KEEP_MARKS), so nothing is reported twice that nobody touched.

Structures considered: a list of its own for reported blocks (needs a second list an order, and gives no order of
addresses); a plain bitmap (finding is linear in guest memory when little is unreported).
"""

from pagetide.guest.allocator.by_position import record_all_free, take_candidates
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, LEFT, PASS_OVER_MAX, YOUNG
from pagetide.guest.allocator.request import unreported_blocks
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import RECORD_UNREPORTED
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on


class Cursor(Passes):
    """Goes round the unreported free blocks by position; see the head of this file."""

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        super().__init__(zone, settings)
        self._position = self._first = 0
        self._wrapped = self._round_done = False

    def start(self, now_s: float) -> None:
        """Have the free path keep the map, put what is free already into it, and request a first pass."""
        switch_on(self._zone, self._settings, recording=RECORD_UNREPORTED)
        record_all_free(self._zone)
        self._schedule.after_delay(now_s)

    def _begin(self) -> None:
        self._first = self._position
        self._wrapped = self._round_done = False

    def _fill(self) -> None:
        words, pages, out = self._zone.words, self._zone.pages, self._out
        while not (self._round_done or out.steps[BLOCKED] or out.steps[FILLED] == len(out.blocks)):
            out.steps[LEFT] = PASS_OVER_MAX
            self._go_on(int(take_candidates(words, pages, self._position, out.blocks, out.steps)))
        out.filled = int(out.steps[FILLED])

    def _go_on(self, position: int) -> None:
        """Move to the position that `take_candidates` gave, beginning again at 0 once."""
        if position < 0:
            self._round_done = self._wrapped
            self._wrapped = True
            position = 0
        self._position = position
        self._round_done = self._round_done or (self._wrapped and position > self._first)

    def _left(self) -> bool:
        return super()._left() or bool(unreported_blocks(self._zone.words) > self._out.steps[YOUNG])
