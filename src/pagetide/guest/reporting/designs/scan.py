"""Linux's design (S1): a worker that walks the free lists and reports what is not yet marked.

Prior art: Linux's mm/page_reporting.c (5.7 and later). A free of a block of at least `order` requests a
pass, which begins `delay_s` later. A pass walks each list from the lowest order up, isolates up to `capacity`
unreported blocks, has them reported, puts them back marked, and goes on behind them.

The two paces:

- `linux`: a pass spends on each list a budget of ceil(free blocks / (16 * capacity)) reports and one more, then
  requests the next pass. A batch that is not full is carried on to the next list. The zone is left alone while its
  free memory is below the low watermark plus a full batch.
- `drain`: a pass goes round every list once, as Duyck's first versions did. A list's last batch is reported before the
  walk goes up, so that what merges on its way back is met again; a split of a reported block requests a pass, since its
  halves lost their mark; near the low watermark batches get smaller instead of none; and a pass that had to leave
  something requests another. So after the last free everything reportable is reported, whatever happens in between.

Divergence in both: a walk passes over at most PASS_OVER_MAX reported blocks under one hold of the lock, and none when
all are; and where there are lists of several migratetypes that of what is movable comes first.
"""

from pagetide.guest.allocator.isolate import (
    BATCH_FULL,
    BUDGET_SPENT,
    CAPPED,
    FILLED,
    LEFT,
    PASSED_OVER,
    WATERMARK,
    YOUNG,
    following_list,
    walk_free_list,
)
from pagetide.guest.allocator.request import request, unreported_blocks
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import DROP_MARKS, FREE_PAGES, NR_FREE, ORDER_MASK, WMARK_LOW
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.units import ORDERS

_PASSES_TO_GO_ROUND = 16
"""A pass covers about this fraction of each list (Linux: all of an idle system in about 30 s)."""


class Scan(Passes):
    """Walks the free lists; see the head of this file."""

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        super().__init__(zone, settings)
        self._drains = settings.pace == "drain"
        self._list = ORDERS
        self._budget = 0

    def start(self, now_s: float) -> None:
        """Request a first pass (`page_reporting_register`)."""
        switch_on(self._zone, self._settings, keep_marks=DROP_MARKS, notify_splits=self._drains)
        self._schedule.after_delay(now_s)

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Put the batch back, marked if it was reported; a failure ends the pass."""
        self._budget -= 1
        super().done(batch, reported, now_s)

    def _begin(self) -> None:
        self._enter_list(self._settings.order if self._has_room() else ORDERS)

    def _fill(self) -> None:
        """Walk list after list, until a batch is full or the lists are over."""
        while self._list & ORDER_MASK < ORDERS:
            if self._walk() or (self._drains and self._out.filled):
                return
            self._enter_list(int(following_list(self._zone.words, self._list)))

    def _walk(self) -> bool:
        """Fill the batch from the current list; whether it is to be reported before the walk goes on."""
        words, pages, out = self._zone.words, self._zone.pages, self._out
        batch = out.blocks[: self._capacity()]
        while True:
            out.steps[FILLED] = 0
            take = self._drains or self._budget >= 0
            outcome = walk_free_list(words, pages, self._list, batch, out.filled, take, True, out.steps)
            out.filled += int(out.steps[FILLED])
            if outcome == BUDGET_SPENT:
                request(words)
            if outcome == WATERMARK:
                out.steps[LEFT] = 0
            if outcome != PASSED_OVER:
                return bool(outcome in (BATCH_FULL, CAPPED) and out.filled)

    def _enter_list(self, listed: int) -> None:
        self._list, order = listed, listed & ORDER_MASK
        if order < ORDERS:
            nr_free = int(self._zone.words[NR_FREE + order])
            self._budget = -(-nr_free // (_PASSES_TO_GO_ROUND * self._settings.capacity))
            self._out.steps[LEFT] = nr_free

    def _has_room(self) -> bool:
        words, settings = self._zone.words, self._settings
        blocks = 1 if self._drains else settings.capacity
        return bool(words[FREE_PAGES] >= words[WMARK_LOW] + (blocks << settings.order))

    def _capacity(self) -> int:
        if not self._drains:
            return self._settings.capacity
        words = self._zone.words
        room = int(words[FREE_PAGES] - words[WMARK_LOW]) >> (self._list & ORDER_MASK)
        return max(0, min(self._settings.capacity, room))

    def _left(self) -> bool:
        words = self._zone.words
        left = self._drains and bool(unreported_blocks(words) > self._out.steps[YOUNG])
        if left:
            request(words)
        return left
