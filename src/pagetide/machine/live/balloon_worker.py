"""The worker of a live guest with a balloon: it also reads what the host wants, and says what is in the balloon."""

from collections.abc import Callable
from typing import ClassVar, Protocol

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import FREE_PAGES
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.machine.balloon_policy import settled
from pagetide.machine.in_flight import Batches
from pagetide.machine.live.guest_worker import CallSource, GuestWorker, ReportDriver


class InflatingDriver(ReportDriver, Protocol):
    """What of a driver this worker needs beside; InflateDriver says what each does."""

    def num_pages(self) -> int:
        """How many pages the host wants in the balloon."""

    def set_actual(self, nr_pages: int) -> None:
        """Say how many are in it."""


class BalloonWorker(GuestWorker):
    """Drives a balloon over its driver in real time. The configuration is read and written by the worker's thread."""

    def __init__(
        self,
        balloon: Balloon,
        driver: InflatingDriver,
        calls: CallSource,
        note_reported: Callable[[Batch], None] | None = None,
    ) -> None:
        """Make the thread."""
        super().__init__(balloon, driver, calls, note_reported=note_reported)
        self._balloon, self._config = balloon, driver
        self._told_pages = 0

    def report_all(self) -> None:
        """Read what the host wants, come as near to it as can be, and say how near that is.

        Raises:
            HostGoneError: the device's end of the connection is closed.
        """
        self._balloon.wanted_pages = self._config.num_pages()
        super().report_all()
        held_pages = self._balloon.held_pages
        if held_pages != self._told_pages:
            self._config.set_actual(held_pages)
            self._told_pages = held_pages


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
