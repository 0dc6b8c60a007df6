"""Every scenario of every design, explored to its end, and everything that is broken on purpose."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pagetide.explorer.broken.variants import VARIANTS
from pagetide.explorer.scenarios import scenarios_of
from pagetide.guest.reporting.registry import DESIGNS
from soak.children import PAGETIDE, run
from soak.part import BrokenError, Part, Trial

_FINISHED = (0, 1)


def _units() -> list[tuple[str, ...]]:
    """What is explored one after the other, as options of `pagetide explore`."""
    designs = [design for design in DESIGNS if design != "off"]
    sound = [("--design", design, "--scenario", name) for design in designs for name in scenarios_of(design)]
    broken = sorted({variant.design for variant in VARIANTS.values()})
    return [*sound, *[("--broken", "--design", design) for design in broken]]


class Explored(Part):
    """Seeds are places in the list of what there is to explore."""

    name = "explorer"
    what = "every interleaving of a design's scenario; what is broken on purpose"

    def __init__(self, command: Sequence[str] = PAGETIDE) -> None:
        """List what there is to explore with this `pagetide`."""
        self.units, self._command = _units(), command

    def paths(self) -> frozenset[str]:
        """Each design with each of its scenarios, and each broken variant."""
        sound = {f"{unit[1]}, {unit[3]}" for unit in self.units if unit[0] != "--broken"}
        return frozenset(sound | {f"caught: {name}" for name in VARIANTS})

    def replay(self, seed: int) -> str:
        """The exploration itself."""
        return " ".join([".venv/bin/pagetide explore", *self.units[seed % len(self.units)]])

    @contextmanager
    def session(self, reached: Counter[str], until_s: float) -> Iterator[Trial]:
        """Each is a process of its own."""

        def trial(seed: int) -> None:
            unit = self.units[seed % len(self.units)]
            done = run([*self._command, "explore", "--json", *unit], until_s)
            if done.returncode not in _FINISHED:
                raise BrokenError(f"exit status {done.returncode}: {done.stderr.strip()[-300:]}")
            for row in json.loads(done.stdout):
                broken = unit[0] == "--broken"
                reached["states"] += row["states"]
                if not row["passed"]:
                    found = row["violation"] or ("it was not caught" if broken else "too many states")
                    raise BrokenError(f"{row['design']}, {row['name']}: {found}")
                reached[f"caught: {row['name']}" if broken else f"{row['design']}, {row['name']}"] += 1

        yield trial
