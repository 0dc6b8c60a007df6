"""What a part of the soak is: trials, each replayable from its seed, and the paths that they are to reach."""

import abc
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

Trial = Callable[[int], None]
"""Tries what a seed says. Raises BrokenError, or anything else, if that broke something."""


class BrokenError(Exception):
    """What a trial was looking for: something is not as it must be."""


class CutShortError(Exception):
    """The time was over before the trial was; it has shown nothing."""


class Part(abc.ABC):
    """One way to look for what is wrong.

    Attributes:
        name: by which it is chosen.
        what: what a trial tries, in a few words.
        rotates: whether seeds are places in a list that is gone through again and again.
        takes_all: a trial takes all the time that there is, so this part is tried only if it is asked for.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    takes_all: ClassVar[bool] = False

    @abc.abstractmethod
    def paths(self) -> frozenset[str]:
        """All that trials should reach: error paths, refusals, designs. What is never reached was not looked at."""

    @abc.abstractmethod
    def session(self, reached: Counter[str], until_s: float) -> AbstractContextManager[Trial]:
        """What several trials share, such as a daemon.

        Args:
            reached: where to count the paths that were reached.
            until_s: when, on the monotonic clock, a trial that is still going on is to be cut short.
        """

    def lacking(self) -> str:
        """What this machine has not that trials need, as a sentence; empty if it has all."""
        return ""

    def told(self) -> str:
        """What the last trial found, beyond what broke, as Markdown."""
        return ""

    def replay(self, seed: int) -> str:
        """The command that tries this seed again; where a trial takes all the time, `--minutes` is to follow."""
        return f".venv/bin/python -m soak --part {self.name} --seed {seed}"


def reason(error: Exception) -> str:
    """What a trial broke, as a sentence."""
    if isinstance(error, BrokenError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
