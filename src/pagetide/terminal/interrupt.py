"""Ctrl-C as a question that is asked, and not as an exception that strikes anywhere."""

import signal
from types import FrameType
from typing import Self


class Interrupt:
    """Within it the first Ctrl-C sets `happened`; a second one raises KeyboardInterrupt, as without it.

    Attributes:
        happened: whether there was one.
    """

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.happened = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
