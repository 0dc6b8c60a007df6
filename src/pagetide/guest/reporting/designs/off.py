"""No reporting: the control."""

from typing import ClassVar

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.virtio.balloon import Queue


class Off:
    """The design that reports nothing."""

    synchronous: ClassVar[bool] = False
    drops_hints: ClassVar[bool] = False
    leftover_blocks_max = 0
    queue = Queue.REPORTING
    due_s = None
    at_rest = True

    def __init__(self, zone: Zone, settings: ReportingSettings) -> None:
        """Take what every design takes, and need none of it."""

    def start(self, now_s: float) -> None:
        """Nothing begins."""

    def stop(self) -> None:
        """Nothing ends."""

    def woken(self, now_s: float) -> None:
        """Nobody raises WAKE: the zone's reporting order is above every block's."""

    def next_batch(self, now_s: float) -> Batch | None:
        """There is never one."""
        return None

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        """Refuse: no batch was given out."""
        raise AssertionError("a design that is off gave out no batch")
