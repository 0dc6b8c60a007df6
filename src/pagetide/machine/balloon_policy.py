"""Who sets the balloon's target: a host that keeps every guest's free memory at a small reserve.

That is what ballooning managers do (oVirt's MOM, Proxmox's pvestatd and others): look at how much the guest has free,
and ask for all of it but a reserve; when less than the reserve is free, give some back. The reserve is what a burst can
use before pages have to come out of the balloon: a sixteenth of RAM. Targets move only by SLACK_PAGES or more, so that
a guest that hardly changes is left alone.

A manager asks the guest for its memory statistics (virtio 1.2, 5.5.6.3), which come a round trip late. This one reads
the zone's words in the shared arena: it is better informed than a real one, never worse.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone_layout import BALLOON_PAGES, FREE_PAGES, NR_PAGES
from pagetide.units import PAGE_SIZE_BYTES

SLACK_PAGES = 256
"""Targets move by this much at least."""

_RESERVE_SHARE = 16


def reserve_pages(nr_pages: int) -> int:
    """How much a guest of this size is to have free."""
    return nr_pages // _RESERVE_SHARE


def wanted_pages(nr_pages: int, free_pages: int, held_pages: int) -> int:
    """How many pages the host wants in the balloon of a guest that has so many in all, free, and in the balloon."""
    return max(0, held_pages + free_pages - reserve_pages(nr_pages))


def settled(words: Any, free_pages: int, held_pages: int) -> bool:
    """Whether the host would leave the target where it is, if the balloon is as it wanted."""
    return abs(wanted_pages(int(words[NR_PAGES]), free_pages, held_pages) - held_pages) < SLACK_PAGES


class Ballooned(Protocol):
    """A guest whose target can be set; AttachedGuest and BalloonDevice say what each does."""

    @property
    def ram_bytes(self) -> int:
        """All memory that the guest has shared."""

    def set_target_bytes(self, target_bytes: int) -> object:
        """Want the guest to make do with this much memory."""


class BalloonPolicy:
    """Moves one guest's target."""

    def __init__(self, words: npt.NDArray[np.int64]) -> None:
        """Look at the words of this guest's zone, int64."""
        self._words = words
        self._target_pages = 0

    def act(self, guest: Ballooned) -> None:
        """Move the target, if it is to be moved.

        Raises:
            GuestGoneError: the guest has gone.
        """
        nr_pages, free_pages, held_pages = (int(self._words[word]) for word in (NR_PAGES, FREE_PAGES, BALLOON_PAGES))
        wanted = wanted_pages(nr_pages, free_pages, held_pages)
        if guest.ram_bytes == 0 or abs(wanted - self._target_pages) < SLACK_PAGES:
            return
        guest.set_target_bytes((nr_pages - wanted) * PAGE_SIZE_BYTES)
        self._target_pages = wanted
