"""The worker of a live guest with a balloon."""

from collections.abc import Callable

from pagetide.guest import balloon_worker as steps
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.designs.balloon import Balloon
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
