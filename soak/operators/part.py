"""The soak as an operator would see it, as a part."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from soak.operators.shift import Crew, play
from soak.operators.timetable import FAULTS
from soak.operators.told import as_markdown
from soak.part import BrokenError, CutShortError, Part, Trial, reason
from tests.operate.metrics.prometheus import find

_DEEDS = ("burst", "burst with a target", "switched itself off", "killed")


class Operators(Part):
    """Each seed is one shift, which takes all the time that there is."""

    name = "operators"
    what = "twenty real guests on one daemon, with metrics, alerts and faults"
    takes_all = True

    def __init__(self, crew: Crew | None = None) -> None:
        """With these guests and faults."""
        self._crew = crew or Crew()
        self._told = ""

    def paths(self) -> frozenset[str]:
        """What guests do, and each fault."""
        return frozenset({*_DEEDS, *(fault.name for fault in FAULTS)})

    def lacking(self) -> str:
        """A Prometheus."""
        return "" if find("prometheus") else "there is no prometheus here: as root on Debian, make setup-guests"

    def told(self) -> str:
        """Its tables."""
        return self._told

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """Nothing is shared."""

        def trial(seed: int) -> None:
            self._told = ""
            try:
                found = play(seed, until_s, self._crew)
            except CutShortError:
                raise
            except Exception as error:
                self._told = f"Seed {seed}: it came to no end. What was not as it must be: {reason(error)}."
                raise
            self._told = as_markdown(found)
            reached.update(found.done)
            if found.wrong:
                raise BrokenError("; ".join(found.wrong))

        yield trial
