"""What a grid keeps of a run: as it comes from a worker, and as it is read again."""

from typing import NamedTuple

import msgspec

from pagetide.compare.results.cells import Cell
from pagetide.machine.result import RunResult

COMPLETE = "complete"
"""The outcome of a run that was run to its end."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one cell.

    Attributes:
        cell: what was to be run.
        outcome: `complete`, or the sentence that says why not.
        result: what was measured; None if nothing was.
        failed: whether the figures are not those of a whole and sound run.
        started: when it began, as ISO 8601 has it, in UTC.
        took_s: how long it took in real time.
        versions: of pagetide and what it runs on, where it ran: pagetide, python, numpy, numba, kernel, cpu.
        costs: name and digest of what things cost; empty for a live run.
    """

    cell: Cell
    outcome: str
    result: RunResult | None
    failed: bool
    started: str
    took_s: float
    versions: dict[str, str]
    costs: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `runs`.

    Attributes:
        key: the cell's.
        cell: what was run.
        failed: whether the figures are not those of a whole and sound run.
        outcome: `complete`, or the sentence that says why not.
        figures: every number that was measured, by the name it has in RunResult; None for what could not be.
        guest: what ran in the guest's place; None if nothing ran.
        skipped_bytes: reported but not discarded, by reason; None if unknown.
        started: when it began, as ISO 8601 has it, in UTC.
        took_s: how long it took in real time.
        versions: of pagetide and what it runs on.
        costs: name and digest of what things cost; empty for a live run.
    """

    key: str
    cell: Cell
    failed: bool
    outcome: str
    figures: dict[str, float | None]
    guest: str | None
    skipped_bytes: dict[str, int] | None
    started: str
    took_s: float
    versions: dict[str, str]
    costs: str

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether it failed because its guest ran out of memory: the design's doing, and nothing that broke."""
        return self.failed and "it ran out of memory" in self.outcome


class LeftOut(NamedTuple):
    """A combination that is not in the grid, and why."""

    what: str
    why: str
