"""What a broken variant is."""

from typing import NamedTuple

from pagetide.explorer.scenario import Scenario
from pagetide.explorer.source import Edit


class Variant(NamedTuple):
    """Something that is broken on purpose.

    Attributes:
        what: is wrong with it.
        design: in which design it shows.
        scenario: where.
        edits: how it is made; none where the scenario itself is at fault.
        found: part of what the explorer must say of it.
    """

    what: str
    design: str
    scenario: Scenario
    edits: tuple[Edit, ...]
    found: str


LOCKED, UNLOCKED = "    lock(words, ZONE_LOCK)\n", "    unlock(words, ZONE_LOCK)\n"
"""How kernels take the zone lock, and give it back."""


def without_lock(module: str, function: str) -> tuple[Edit, ...]:
    """Have a kernel go without the zone lock."""
    return Edit(module, f"def {function}(", LOCKED, ""), Edit(module, f"def {function}(", UNLOCKED, "")
