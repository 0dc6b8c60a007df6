"""An observer for tests of machines."""

from collections.abc import Callable

from pagetide.machine.result import Sample

MIB = 1 << 20


class Watcher:
    """An observer that does something once, when the guest is at its fullest."""

    def __init__(self, act: Callable[[], None] = lambda: None, at_bytes: int = 40 * MIB) -> None:
        self.stages: list[str] = []
        self.warnings: list[str] = []
        self._act, self._at_bytes = act, at_bytes

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def sample(self, sample: Sample) -> None:
        if sample.guest_used_bytes >= self._at_bytes:
            act, self._act = self._act, lambda: None
            act()

    def warning(self, text: str) -> None:
        self.warnings.append(text)
