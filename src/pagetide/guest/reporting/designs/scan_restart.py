"""The counter-example of the thread (S2): a walk that begins at the head of its list each time.

Tsirkin's objection to an interface without a *next*: whoever asks for "an unreported free block" and has the search
begin anew is at the mercy of what happens at the head. Freed blocks come in at the head, so while the guest churns,
the same hot blocks are reported again and again, and what lies behind them is not reached. Once more reported blocks
than a walk may pass under one hold of the lock (PASS_OVER_MAX) are in front, nothing behind them is ever found.

Otherwise as `scan` at the pace `drain`, and blocks go back to the tail as in Linux; only the list is not rotated.
"""

from pagetide.guest.allocator.isolate import FILLED, LEFT, PASS_OVER_MAX, YOUNG, following_list, walk_free_list
from pagetide.guest.allocator.request import request, unreported_blocks
from pagetide.guest.allocator.zone_layout import DROP_MARKS, FREE_PAGES, ORDER_MASK, WMARK_LOW
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.switch import switch_on
from pagetide.units import ORDERS


class ScanRestart(Passes):
    """Walks the free lists from their heads; see the head of this file."""

    def start(self, now_s: float) -> None:
        """Request a first pass."""
        switch_on(self._zone, self._settings, keep_marks=DROP_MARKS, notify_splits=True)
        self._schedule.after_delay(now_s)

    def _fill(self) -> None:
        words, out = self._zone.words, self._out
        listed = self._settings.order
        while out.filled == 0 and listed & ORDER_MASK < ORDERS:
            room = int(words[FREE_PAGES] - words[WMARK_LOW]) >> (listed & ORDER_MASK)
            batch = out.blocks[: max(0, min(len(out.blocks), room))]
            out.steps[LEFT] = PASS_OVER_MAX
            walk_free_list(words, self._zone.pages, listed, batch, 0, True, False, out.steps)
            out.filled = int(out.steps[FILLED])
            listed = int(following_list(words, listed))

    def _left(self) -> bool:
        left = bool(unreported_blocks(self._zone.words) > 0 and not self._out.steps[YOUNG])
        if left:
            request(self._zone.words)
        return left
