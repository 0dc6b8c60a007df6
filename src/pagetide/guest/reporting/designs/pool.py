"""A pool of memory that stays with the guest because it is about to be used again; the rest is reported when it pays.

What makes small orders dear is when they report, not how: a page that is taken again within seconds of its report costs
a discard and a refault, and saved next to nothing. So this design keeps as much unreported memory as will be allocated
in the next `keep_s` seconds at the rate of late, gives that out first (KEEP_APART in buddy.py), and reports beyond it
what has been free for longest.

A pass at most every second while there is unreported memory, none where there is none. The next one waits until enough
can be due to be worth a pass: until runs that are left can be worth it, or the rate can have decayed until so much less
is kept. But not for longer than `idle_s`: what is freed meanwhile cannot be due before that, nor can what is freed
first when all has been reported. Each

- takes the rate of allocations since the pass before, or what is left of a higher one before that, half of it after
  six seconds; `keep` is what it makes in `keep_s`;
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

import math
from typing import ClassVar

import numpy as np

from pagetide.guest.allocator.by_position import record_all_free
from pagetide.guest.allocator.isolate import BLOCKED, FILLED
from pagetide.guest.allocator.page_alloc import join_all
from pagetide.guest.allocator.zone import TICKS_PER_S, Zone
from pagetide.guest.allocator.zone_layout import (
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
    LEFT_PAGES,
    NEXT_WORTH,
    PLAN_WORDS,
    WAITING,
    end_plan,
    plan_pass,
    take_frames,
)
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.memory.frame_table import FRAME_PAGES
from pagetide.units import PAGE_SIZE_BYTES

BUSY_S = 20.0
"""How old unreported memory gets at most, unless `keep_s` says more."""

_PASS_PAGES = 1024
"""A pass is planned for when so many pages can be due, or half of what is unreported if that is less.

It costs what discarding some fifty single pages does (`survey` and `backings` in costs).
"""

_HALF_LIFE_S = 6.0


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
        self._plan = np.zeros(PLAN_WORDS, np.int64)
        self._keep_pages = 0
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

    def woken(self, now_s: float) -> None:
        """Something is free again where all was reported: a pass once that can be due, and a rate from now on."""
        if self._schedule.due_s is None:
            self._measure(now_s)
            self._schedule.after_delay(now_s)
            self._schedule.not_before(now_s + self._settings.idle_s)

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
        words = self._zone.words
        if self._since_start < AGE_OLD:
            self._since_start = (int(words[TICK]) - self._start_tick) & TICK_MASK
        plan_pass(
            words,
            self._zone.pages,
            self._since_start,
            self._keep_pages,
            self._idle_ticks,
            self._worths,
            self._frames,
            self._order,
            self._plan,
        )

    def _fill(self) -> None:
        out = self._out
        if self._plan[WAITING] > 0:
            take_frames(
                self._zone.words,
                self._zone.pages,
                self._since_start,
                self._keep_pages,
                self._settings.in_flight_max_bytes // PAGE_SIZE_BYTES,
                self._busy_ticks,
                self._order,
                self._plan,
                out.blocks,
                out.steps,
            )
        out.filled = int(out.steps[FILLED])

    def _end_pass(self, now_s: float) -> None:
        again = bool(end_plan(self._zone.words, self._worths, _PASS_PAGES, self._plan))
        left = int(self._plan[LEFT_PAGES])
        blocked = bool(self._out.steps[BLOCKED])
        self._schedule.pass_ended(now_s, again=again, young=left > 0, blocked=blocked)
        self._in_pass = False
        if left > 0 and not blocked:
            self._schedule.not_before(now_s + self._quiet_s(left))

    def _quiet_s(self, left_pages: int) -> float:
        """How long too little of what is unreported can be due, if nothing is freed or allocated."""
        idle_s, worth = self._settings.idle_s, int(self._plan[NEXT_WORTH])
        if left_pages > self._keep_pages:
            return (self._idle_ticks - worth) / TICKS_PER_S
        old_s = (self._busy_ticks - worth) / TICKS_PER_S
        staying = left_pages - min(_PASS_PAGES, left_pages // 2)
        return min(old_s, idle_s, _HALF_LIFE_S * math.log2(self._keep_pages / staying))
