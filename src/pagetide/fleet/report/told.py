"""What the report tells of."""

from collections.abc import Sequence
from typing import NamedTuple

from pagetide.fleet.hosts.cluster import Question
from pagetide.fleet.learning.check import Verdict
from pagetide.fleet.learning.chosen import Chosen
from pagetide.fleet.runs.store import Results
from pagetide.fleet.runs.summary import SettingSummary, Summary
from pagetide.fleet.usage.canonical import Grid
from pagetide.fleet.usage.oddities import Oddities
from pagetide.machine.costs import Costs

_DESIGNS = {"linux": "scan", "nothing returns": "off", "all returns at once": "off"}


class Told(NamedTuple):
    """A fleet that was looked at.

    Attributes:
        about: what the usage is.
        grid: of the usage.
        oddities: what was odd in it.
        question: what was asked of hosts.
        found: what came of it.
        results: the database.
        versions: of what it was made with.
        chosen: the settings between the bounds, in their order.
        costs: what CPU time follows from.
        checked: whose days the model was checked on, and how that went; None if that is not known.
    """

    about: str
    grid: Grid
    oddities: Oddities
    question: Question
    found: Summary
    results: Results
    versions: dict[str, str]
    chosen: Sequence[Chosen]
    costs: Costs
    checked: tuple[str, list[Verdict]] | None = None

    @property
    def learned(self) -> tuple[SettingSummary, ...]:
        """The settings between the bounds."""
        return self.found.settings[1:-1]


def design_of(setting: str) -> str:
    """Whose colour a setting has: a design of the palette; a mixture has that of its first part."""
    name = setting.partition(",")[0].partition(":")[0]
    return _DESIGNS.get(name) or _DESIGNS.get(name.partition("-")[0]) or name.removesuffix("-0")
