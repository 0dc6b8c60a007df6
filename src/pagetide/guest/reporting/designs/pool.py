"""A pool of memory that stays with the guest because it is about to be used again; the rest is reported when it pays.

What makes small orders dear is when they report, not how: a page that is taken again within seconds of its report costs
a discard and a refault, and saved next to nothing. So this design keeps as much unreported memory as will be allocated
in the next `keep_s` seconds at the rate of late, gives that out first (KEEP_APART in buddy.py), and reports beyond it
what has been free for longest.

A pass every second while there is unreported memory, none otherwise. Each

- takes the rate of allocations since the pass before, or what is left of a higher one before that, half of it after
  four seconds; `keep` is what it makes in `keep_s`;
- surveys the runs of unreported pages within frames of 2 MiB (runs.py). A run is worth its pages' ages added up,
  divided by what discarding it costs: its pages and 1.15 more, for the call. So single pages wait for twice as long as
  whole blocks: by then most have been taken or have neighbours;
- reports the runs that are worth most, until no more than `keep` is unreported, frames with much unreported memory
  first. None is reported that is worth less than `idle_s`; and what is worth 20 s, or twice `keep_s` if that is more,
  is reported in any case.

Where the host has larger pages, a part of one would split it, or not come back at all. So no block is reported that is
smaller than they are (`unit_order`): what is free in pieces stays.

When nothing is allocated any more the rate decays, and everything is reported within seconds. What is free when it
begins counts as free for long.
"""

from typing import ClassVar

import numpy as np

from pagetide.guest.allocator.by_position import record_all_free
from pagetide.guest.allocator.isolate import BLOCKED, FILLED, PASS_OVER_MAX, YOUNG
from pagetide.guest.allocator.page_alloc import join_all
from pagetide.guest.allocator.request import unreported_blocks, unreported_pages
from pagetide.guest.allocator.zone import TICKS_PER_S, Zone
from pagetide.guest.allocator.zone_layout import (
    ISOLATED_PAGES,
    KEEP_APART,
    KEEP_MARKS,
    KEEP_WHOLE_MARKS,
    NR_PAGES,
    RECORD_UNREPORTED,
    TAKEN_PAGES,
    TICK,
    TICK_MASK,
)
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.passes import Passes
from pagetide.guest.reporting.runs import (
    AGE_OLD,
    FRAME_COLUMNS,
    FRAME_UNREPORTED,
    FRAME_WORTH,
    survey,
    take_runs,
)
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.memory.frame_table import FRAME_PAGES
from pagetide.units import PAGE_SIZE_BYTES

BUSY_S = 20.0
"""How old unreported memory gets at most, unless `keep_s` says more."""

_HALF_LIFE_S = 4.0


class Pool(Passes):
    """Keeps what is about to be used, and reports the rest when that pays; see the head of this file."""

    own_delay_s: ClassVar[float] = 1.0

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone to report for; nothing happens before `start`."""
        super().__init__(zone, settings)
        busy_s = max(BUSY_S, 2 * settings.keep_s)
        self._idle_ticks, self._busy_ticks = round(settings.idle_s * TICKS_PER_S), round(busy_s * TICKS_PER_S)
        self._worths = np.zeros(self._busy_ticks + 1, np.int64)
        self._frames = np.zeros((-(-int(zone.words[NR_PAGES]) // FRAME_PAGES), FRAME_COLUMNS), np.int64)
        self._order = np.zeros(len(self._frames), np.int64)
        self._waiting = self._next = 0
        self._keep_pages = self._least_ticks = 0
        self._start_tick, self._since_start = 0, 0
        self._pass_s = self._rate = 0.0
        self._taken_before = 0

    def start(self, now_s: float) -> None:
        """Have the free path keep marks apart and map what is unreported, and request a first pass."""
        words = self._zone.words
        switch_on(self._zone, self._settings, recording=RECORD_UNREPORTED, keep_marks=KEEP_APART)
        record_all_free(self._zone)
        self._start_tick, self._since_start = int(words[TICK]), 0
        self._pass_s, self._taken_before, self._rate = now_s, int(words[TAKEN_PAGES]), 0.0
        self._schedule.after_delay(now_s)

    def stop(self) -> None:
        """Ask for nothing any more; what was kept apart merges."""
        super().stop()
        join_all(self._zone.words, self._zone.pages)
        self._zone.words[KEEP_MARKS] = KEEP_WHOLE_MARKS

    def next_batch(self, now_s: float) -> Batch | None:
        """Fill the next batch of the pass; None when the pass is over, or none is due."""
        if not self._in_pass and self._schedule.is_due(now_s):
            self._measure(now_s)
        return super().next_batch(now_s)

    def _measure(self, now_s: float) -> None:
        """How much is to be kept, by what was allocated since the pass before."""
        spent_s = now_s - self._pass_s
        if spent_s <= 0:
            return
        taken = int(self._zone.words[TAKEN_PAGES])
        rate = (taken - self._taken_before) / spent_s
        self._rate = max(rate, self._rate * 0.5 ** (spent_s / _HALF_LIFE_S))
        self._pass_s, self._taken_before = now_s, taken
        self._keep_pages = int(self._rate * self._settings.keep_s)

    def _begin(self) -> None:
        """See what there is, and what a run must be worth."""
        words, pages = self._zone.words, self._zone.pages
        if self._since_start < AGE_OLD:
            self._since_start = (int(words[TICK]) - self._start_tick) & TICK_MASK
        self._worths[:] = 0
        self._frames[:] = 0
        position = 0
        while position >= 0:
            position = int(
                survey(words, pages, position, self._since_start, self._worths, self._frames, PASS_OVER_MAX)
            )  # fmt: skip
        # From what is worth most down: how far to go until no more than what is to be kept is left.
        left = self._worths.sum() - np.cumsum(self._worths[::-1])
        worth = self._busy_ticks - int(np.argmax(left <= self._keep_pages))
        self._least_ticks = min(max(worth, self._idle_ticks), self._busy_ticks)
        chosen = self._frames[:, FRAME_WORTH] >= self._least_ticks
        self._waiting = int(chosen.sum())
        rank = np.where(chosen, self._frames[:, FRAME_UNREPORTED], -1)
        self._order[:] = np.argsort(-rank, kind="stable")
        self._next = 0

    def _fill(self) -> None:
        words, pages, out = self._zone.words, self._zone.pages, self._out
        most_pages = self._settings.in_flight_max_bytes // PAGE_SIZE_BYTES
        while self._next < self._waiting and words[ISOLATED_PAGES] < most_pages and not out.steps[BLOCKED]:
            spare = unreported_pages(words) > self._keep_pages
            least_ticks = self._least_ticks if spare else self._busy_ticks
            frame = int(self._order[self._next])
            if not take_runs(words, pages, frame, self._since_start, least_ticks, out.blocks, out.steps):
                break
            self._next += 1
        out.filled = int(out.steps[FILLED])

    def _left(self) -> bool:
        self._out.steps[YOUNG] = unreported_blocks(self._zone.words)
        return bool(self._out.steps[BLOCKED])
