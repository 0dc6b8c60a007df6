"""What of the guest's free memory the host has at the moment: what a failing allocation may wait for."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import FREE_PAGES, ISOLATED_PAGES, NR_PAGES
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.memory.frame_table import (
    BEGUN,
    ENDED,
    FRAME_PAGES,
    FRAMES,
    FREE,
    STATE_MASK,
    TAKING,
    TAKING_NOW,
)

_LOOK_AGAIN_S = 0.002


class InFlight(Protocol):
    """Batches of free memory that come and go.

    Attributes:
        look_again_s: how long to wait at most between two looks, if nobody notifies; else infinity.
    """

    look_again_s: ClassVar[float]

    @property
    def begun(self) -> int:
        """Batches begun, counted before anything is out of the allocator's reach."""

    @property
    def ended(self) -> int:
        """Batches ended, counted when everything is within reach again."""

    @property
    def pages_out(self) -> int:
        """Pages that are free and out of reach."""

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left to be done before something is freed, besides what the worker knows."""


class Batches(Protocol):
    """What counts batches: a worker.

    Attributes:
        batches_begun: how many times a batch was asked for, counted before anything is isolated.
        batches_done: how many of those are over, counted when everything is back in the allocator.
    """

    batches_begun: int
    batches_done: int


class Isolated:
    """Blocks that the worker isolated; it notifies when they are back."""

    look_again_s: ClassVar[float] = float("inf")
    at_rest = True

    def __init__(self, zone: Zone, worker: Batches) -> None:
        """Look at this worker's batches."""
        self._zone, self._worker = zone, worker

    @property
    def begun(self) -> int:
        """Batches asked for."""
        return self._worker.batches_begun

    @property
    def ended(self) -> int:
        """Batches handed back."""
        return self._worker.batches_done

    @property
    def pages_out(self) -> int:
        """Pages isolated."""
        return int(self._zone.words[ISOLATED_PAGES])


class TakenByHost:
    """Frames that the host takes from the shared table; it tells nobody, so whoever waits looks again and again."""

    look_again_s: ClassVar[float] = _LOOK_AGAIN_S

    def __init__(self, zone: Zone) -> None:
        """Look at this zone's frame table."""
        self._table = zone.frame_table
        self._end = FRAMES + int(zone.words[NR_PAGES]) // FRAME_PAGES

    @property
    def begun(self) -> int:
        """Batches of frames that became TAKING."""
        return int(self._table[BEGUN])

    @property
    def ended(self) -> int:
        """Batches of frames that became TAKEN."""
        return int(self._table[ENDED])

    @property
    def pages_out(self) -> int:
        """Pages of frames that are TAKING."""
        return int(self._table[TAKING_NOW]) * FRAME_PAGES

    @property
    def at_rest(self) -> bool:
        """Whether the host has taken all that is free."""
        states = self._table[FRAMES : self._end] & STATE_MASK
        return not np.any((states == FREE) | (states == TAKING))


class InBalloon:
    """Pages in the balloon; nobody notifies after a relief, so whoever waits looks again and again."""

    look_again_s: ClassVar[float] = 0.01

    def __init__(self, zone: Zone, balloon: Balloon, worker: Batches, settled: Callable[[Any, int, int], bool]) -> None:
        """Look at this balloon.

        Args:
            zone: the guest's memory.
            balloon: what the pages are in.
            worker: inflates and deflates it.
            settled: whether the host would leave the balloon as it is, of the zone's words, its free pages and those in
                the balloon.
        """
        self._zone, self._balloon, self._worker, self._settled = zone, balloon, worker, settled

    @property
    def begun(self) -> int:
        """Batches begun and reliefs; one that has not ended is counted for as long as pages are in the balloon."""
        return self._worker.batches_begun + self._balloon.reliefs + (self._balloon.held_pages > 0)

    @property
    def ended(self) -> int:
        """Batches ended, and reliefs: after another vCPU's an allocation that failed before it is tried again."""
        return self._worker.batches_done + self._balloon.reliefs

    @property
    def pages_out(self) -> int:
        """Pages in the balloon."""
        return self._balloon.held_pages

    @property
    def at_rest(self) -> bool:
        """Whether the balloon is as the host wants it, and the host will not want it otherwise."""
        held_pages = self._balloon.held_pages
        free_pages = int(self._zone.words[FREE_PAGES])
        return held_pages == self._balloon.wanted_pages and self._settled(self._zone.words, free_pages, held_pages)
