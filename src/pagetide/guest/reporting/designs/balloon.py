"""Classic ballooning as a way to return memory (virtio 1.2, 5.5.6; Linux's drivers/virtio/virtio_balloon.c, 6.1).

The host wants so many pages in the balloon (`num_pages`). The guest allocates single pages, tells the host of them 256
at a time (VIRTIO_BALLOON_ARRAY_PFNS_MAX) on the inflate queue, and the host discards them; when the host wants fewer,
it tells of them on the deflate queue and frees them. So, unlike in the other designs, a batch that the host has dealt
with is not handed back: inflated pages stay in the balloon.

When an allocation would fail, pages come back at once, 256 at a time (VIRTBALLOON_OOM_NR_PAGES) or as many as are
missing, and the host is told later: that is allowed where MUST_TELL_HOST was not negotiated (virtio 1.2, 5.5.6.1).
It is told before any further page goes to the balloon, so that it hears of each page in the order in which things
happened. Linux's notifier waits for the host there; a vCPU of ours does not. A pass that was inflating meanwhile ends:
what it would take is what the allocation needs.

Linux goes through the per-CPU lists, page by page; here a batch is taken from the buddy allocator under one hold of the
zone lock, in runs, and pages come out by position: our guest has no compaction (balloon_pages.py says more). `order`,
`capacity` and `in_flight_max_bytes` have no meaning, `oom none` is a balloon without DEFLATE_ON_OOM. What the host
wants comes in as `wanted_pages`; who decides that is the host's policy, not the design's.
"""

from typing import ClassVar

import numpy as np

from pagetide.guest.allocator.balloon_pages import (
    COUNTS,
    PFNS_ORDER,
    RELIEFS,
    deflate_now,
    free_pages,
    hold_pages,
    pick_held,
    pop_untold,
    push_untold,
    take_pages,
)
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import BALLOON_PAGES, NR_PAGES
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.virtio.balloon import Queue

PFNS_A_BATCH = 1 << PFNS_ORDER
"""Pages in a buffer of either queue."""

OOM_PAGES = 256
"""Pages that an allocation which would fail gets back, unless it needs more."""

OWN_DELAY_S = 1.0
"""From one look at what the host wants to the next, if nothing else is asked for."""


class Balloon:
    """Inflates and deflates towards `wanted_pages`; see the head of this file.

    Attributes:
        wanted_pages: what the host wants in the balloon; set it whenever the configuration was read.
        queue: the virtqueue of the batch that is out.
        due_s: when there is something to do; None while there is not.
    """

    synchronous: ClassVar[bool] = False
    drops_hints: ClassVar[bool] = False
    leftover_blocks_max = 0
    queue: Queue
    due_s: float | None
    wanted_pages: int

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take the zone that the pages come from; nothing happens before `start`."""
        self._zone = zone
        self._delay_s = OWN_DELAY_S if settings.delay_s is None else settings.delay_s
        self._untold = np.zeros(int(zone.words[NR_PAGES]), np.int64)
        self._counts = np.zeros(COUNTS, np.int64)
        self._batch = np.zeros(PFNS_A_BATCH, np.int64)
        self._out = 0
        self._frees = self._relieved = False
        self.queue, self.due_s, self.wanted_pages = Queue.INFLATE, None, 0

    @property
    def held_pages(self) -> int:
        """Pages in the balloon, those included that the host is just being told of."""
        return int(self._zone.words[BALLOON_PAGES])

    @property
    def at_rest(self) -> bool:
        """Whether the balloon is as the host wanted it when the design last looked."""
        return not self._out and self.held_pages == self.wanted_pages

    @property
    def reliefs(self) -> int:
        """How often `deflate_on_oom` gave pages back."""
        return int(self._counts[RELIEFS])

    def start(self, now_s: float) -> None:
        """Look at what the host wants after the delay."""
        self.due_s = now_s + self._delay_s

    def stop(self) -> None:
        """Give every page back; the host is told when the design is switched on again."""
        assert not self._out
        deflate_now(self._zone.words, self._zone.pages, self._untold, self._counts, self.held_pages, 0)
        assert not self.held_pages
        self._relieved = False
        self.due_s = None

    def woken(self, now_s: float) -> None:
        """Nobody raises WAKE: what is freed is no business of the balloon's."""

    def next_batch(self, now_s: float) -> Batch | None:
        """The next pages to inflate, to deflate or to tell of; None when the balloon is as wanted, or can't be."""
        assert not self._out, "the batch before was not handed back"
        if self.due_s is None or now_s < self.due_s:
            return None
        count = self._next_pages()
        if count == 0:
            self._relieved = False
            self.due_s = now_s + self._delay_s
            return None
        self._out = count
        return self._batch[:count]

    def _next_pages(self) -> int:
        """Fill the batch, and say in `queue` and `_frees` what it is for; how many pages."""
        words, pages, untold, counts = self._zone.words, self._zone.pages, self._untold, self._counts
        self.queue, self._frees = Queue.DEFLATE, False
        count = int(pop_untold(words, untold, counts, self._batch))
        missing = self.wanted_pages - self.held_pages
        if count or missing == 0:
            return count
        most = min(abs(missing), PFNS_A_BATCH)
        if missing < 0:
            self._frees = True
            return int(pick_held(words, pages, counts, self._batch, most))
        self.queue = Queue.INFLATE
        return 0 if self._relieved else int(take_pages(words, pages, counts, self._batch[:most]))

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Keep what was inflated, free what was deflated; after a failure all is as it was before the batch."""
        words, pages, untold, counts = self._zone.words, self._zone.pages, self._untold, self._counts
        assert len(batch) == self._out > 0
        self._out = 0
        if self.queue is Queue.INFLATE:
            if reported:
                hold_pages(words, pages, counts, batch, len(batch))
            else:
                free_pages(words, pages, batch, len(batch))
        elif not self._frees:
            if not reported:
                push_untold(words, untold, counts, batch, len(batch))
        elif reported:
            free_pages(words, pages, batch, len(batch))
        else:
            hold_pages(words, pages, counts, batch, len(batch))
        if not reported:
            self.due_s = now_s + self._delay_s

    def deflate_on_oom(self, order: int) -> int:
        """Give pages back at once, from any thread, for a block of this order if the balloon has it; how many."""
        self._relieved = True
        most = max(1 << order, OOM_PAGES)
        return int(deflate_now(self._zone.words, self._zone.pages, self._untold, self._counts, most, order))
