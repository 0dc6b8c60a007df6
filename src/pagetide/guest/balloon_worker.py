"""The worker of a guest with a balloon, step by step: it also reads what the host wants, and says what is in it."""

from typing import Protocol

from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.guest.worker import ReportDriver, Reporting, Wait, Worker


class InflatingDriver(ReportDriver, Protocol):
    """What of a driver this worker needs beside; InflateDriver says what each does."""

    def num_pages(self) -> int:
        """How many pages the host wants in the balloon."""

    def set_actual(self, nr_pages: int) -> None:
        """Say how many are in it."""


class BalloonWorker(Worker):
    """Drives a balloon over its driver. The configuration is read and written by the worker alone.

    Attributes:
        told_pages: what the host was last told of the balloon's size.
    """

    def __init__(self, reporting: Reporting, balloon: Balloon, config: InflatingDriver) -> None:
        """Take what the worker of such a guest knows of its design and its driver."""
        super().__init__(reporting)
        self.balloon, self.config = balloon, config
        self.told_pages = 0

    def wake_up(self, now_s: float) -> Wait:
        """Ask what the host wants."""
        super().wake_up(now_s)
        self.step = "read_wanted"
        return Wait.ANSWER

    def read_wanted(self, now_s: float) -> Wait:
        """Have the balloon want as much."""
        self.balloon.wanted_pages = self.config.num_pages()
        self.step = "next_turn"
        return Wait.NOTHING

    def finish(self, now_s: float) -> Wait:
        """Tell the host how large the balloon is, if it is not what the host was told before."""
        held_pages = self.balloon.held_pages
        if held_pages == self.told_pages:
            self.step = "rest"
            return Wait.NOTHING
        self.told_pages = held_pages
        self.step = "say_actual"
        return Wait.ANSWER

    def say_actual(self, now_s: float) -> Wait:
        """Tell it."""
        self.config.set_actual(self.told_pages)
        self.step = "rest"
        return Wait.NOTHING
