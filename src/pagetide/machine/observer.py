"""What every machine does, who watches a run, and how often there is something to see."""

from typing import Protocol

from pagetide.machine.result import RunResult, Sample

SAMPLE_INTERVAL_S = 0.02
"""How often residency and the counters are read."""


class Observer(Protocol):
    """Who watches a run."""

    def stage(self, text: str) -> None:
        """Something new begins."""

    def sample(self, sample: Sample) -> None:
        """The state of things, every SAMPLE_INTERVAL_S."""

    def warning(self, text: str) -> None:
        """Something is not as it should be."""


class Nobody:
    """Watches no run."""

    def stage(self, text: str) -> None:
        """Something new begins."""

    def sample(self, sample: Sample) -> None:
        """The state of things."""

    def warning(self, text: str) -> None:
        """Something is not as it should be."""


class Machine(Protocol):
    """What runs a guest and its host."""

    def run(self, observer: Observer) -> RunResult:
        """Run to the end, and say what was measured."""
