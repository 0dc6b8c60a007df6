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
all are.
"""

import numpy as np

from pagetide.guest.isolate import BATCH_FULL, BUDGET_SPENT, PASSED_OVER, WATERMARK, put_back, walk_free_list
from pagetide.guest.reporting.design import Batch, ReportingSettings
from pagetide.guest.request import begin_pass, end_pass, request
from pagetide.guest.zone import Zone
from pagetide.guest.zone_layout import (
    FREE_PAGES,
    NOTIFY_SPLITS,
    NR_FREE,
    NR_REPORTED,
    REPORTING_ORDER,
    WMARK_LOW,
)
from pagetide.units import ORDER_MAX, ORDERS

_PASSES_TO_GO_ROUND = 16
"""A pass covers about this fraction of each list (Linux: all of an idle system in about 30 s)."""


class Scan:
    """Walks the free lists; see the head of this file."""

    due_s: float | None

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        assert 0 <= settings.order <= ORDER_MAX
        assert settings.capacity >= 1
        self.due_s = None
        self._zone = zone
        self._settings = settings
        self._drains = settings.pace == "drain"
        self._batch = np.zeros(settings.capacity, np.int64)
        self._filled = 0
        self._given = False
        self._list: int | None = None
        self._budget = 0
        self._steps = np.zeros(2, np.int64)

    def start(self, now_s: float) -> None:
        """Request a first pass (`page_reporting_register`)."""
        self._zone.words[REPORTING_ORDER] = self._settings.order
        self._zone.words[NOTIFY_SPLITS] = self._drains
        request(self._zone.words)
        self.due_s = now_s + self._settings.delay_s

    def woken(self, now_s: float) -> None:
        """A pass was requested while there was none: it begins after the delay."""
        if self.due_s is None:
            self.due_s = now_s + self._settings.delay_s

    def next_batch(self, now_s: float) -> Batch | None:
        """Walk on until a batch is full, or a pass ends."""
        assert not self._given, "the batch before was not handed back"
        if self.due_s is None or now_s < self.due_s:
            return None
        if self._list is None:
            begin_pass(self._zone.words)
            self._enter_list(self._settings.order if self._has_room() else ORDERS)
        while self._list is not None and self._list < ORDERS:
            if self._walk() or (self._drains and self._filled):
                return self._give()
            self._enter_list(self._list + 1)
        if self._filled:
            return self._give()
        self._end_pass(now_s)
        return None

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Put the batch back, marked if it was reported; a failure ends the pass."""
        assert self._given
        put_back(self._zone.words, self._zone.pages, batch, len(batch), reported)
        self._given = False
        self._filled = 0
        self._budget -= 1
        if not reported:
            self._end_pass(now_s)

    def _walk(self) -> bool:
        """Fill the batch from the current list; whether it is to be reported before the walk goes on."""
        assert self._list is not None
        words, pages = self._zone.words, self._zone.pages
        batch = self._batch[: self._capacity()]
        while True:
            self._steps[0] = 0
            take = self._drains or self._budget >= 0
            outcome = walk_free_list(words, pages, self._list, batch, self._filled, take, self._steps)
            self._filled += int(self._steps[0])
            if outcome == BUDGET_SPENT:
                request(words)
            if outcome == WATERMARK:
                self._steps[1] = 0
            if outcome != PASSED_OVER:
                return bool(outcome == BATCH_FULL and self._filled)

    def _enter_list(self, order: int) -> None:
        self._list = order
        if order < ORDERS:
            nr_free = int(self._zone.words[NR_FREE + order])
            self._budget = -(-nr_free // (_PASSES_TO_GO_ROUND * self._settings.capacity))
            self._steps[1] = nr_free

    def _has_room(self) -> bool:
        words, settings = self._zone.words, self._settings
        blocks = 1 if self._drains else settings.capacity
        return bool(words[FREE_PAGES] >= words[WMARK_LOW] + (blocks << settings.order))

    def _capacity(self) -> int:
        if not self._drains or self._list is None:
            return self._settings.capacity
        words = self._zone.words
        room = int(words[FREE_PAGES] - words[WMARK_LOW]) >> self._list
        return max(0, min(self._settings.capacity, room))

    def _give(self) -> Batch:
        assert 0 < self._filled <= self._settings.capacity
        self._given = True
        return self._batch[: self._filled]

    def _end_pass(self, now_s: float) -> None:
        words, order = self._zone.words, self._settings.order
        again = bool(end_pass(words))
        left = bool(
            np.any(words[NR_FREE + order : NR_FREE + ORDERS] > words[NR_REPORTED + order : NR_REPORTED + ORDERS])
        )
        if self._drains and left and not again:
            request(words)
            again = True
        self.due_s = now_s + self._settings.delay_s if again else None
        self._list = None
