"""The worker of a live guest with a balloon, and what a failing allocation may wait for there."""

from collections.abc import Callable
from typing import ClassVar

from pagetide.guest import balloon_worker as steps
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import FREE_PAGES
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.machine.balloon_policy import settled
from pagetide.machine.in_flight import Batches
from pagetide.machine.live.guest_worker import CallSource, GuestWorker


class BalloonWorker(GuestWorker):
    """Drives a balloon over its driver in real time; reading and writing the configuration waits for the device."""

    def __init__(
        self,
        balloon: Balloon,
        driver: steps.InflatingDriver,
        calls: CallSource,
        note_reported: Callable[[Batch], None] | None = None,
    ) -> None:
        """Make the thread."""
        super().__init__(balloon, driver, calls, note_reported=note_reported)
        self._balloon, self._config = balloon, driver

    def steps(self) -> steps.BalloonWorker:
        """The steps that the thread is to run."""
        return steps.BalloonWorker(self, self._balloon, self._config)


class InBalloon:
    """What of the guest's free memory is in the balloon, as an InFlight."""

    look_again_s: ClassVar[float] = 0.01

    def __init__(self, zone: Zone, balloon: Balloon, worker: Batches) -> None:
        """Look at this balloon."""
        self._zone, self._balloon, self._worker = zone, balloon, worker

    @property
    def begun(self) -> int:
        """Batches begun and reliefs; one that has not ended is counted for as long as pages are in the balloon."""
        return self._worker.batches_begun + self._balloon.reliefs + (self._balloon.held_pages > 0)

    @property
    def ended(self) -> int:
        """Batches ended, and reliefs: after another vCPU's an allocation that failed before it is tried again."""
        return self._worker.batches_done + self._balloon.reliefs

    @property
    def pages(self) -> int:
        """Pages in the balloon."""
        return self._balloon.held_pages

    @property
    def at_rest(self) -> bool:
        """Whether the balloon is as the host wants it, and the host will not want it otherwise."""
        words = self._zone.words
        held_pages = self._balloon.held_pages
        return held_pages == self._balloon.wanted_pages and settled(words, int(words[FREE_PAGES]), held_pages)
