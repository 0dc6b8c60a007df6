"""The claims of the thread, each with what tests it. A new claim is one entry in a file claims_*.py."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pagetide.lab.compare.cells import Cell, MachineName, repeats_of, without_duplicates
from pagetide.lab.compare.evidence import Case, Evidence
from pagetide.lab.compare.grid import check_machine
from pagetide.lab.compare.verdicts import Verdict
from pagetide.machine.config import ConfigError

Judge = Callable[[Evidence], tuple[Verdict, str]]
"""From the figures of a claim's cases to a verdict, and a sentence that is made of the figures."""


class Claim(NamedTuple):
    """A claim, and what tests it.

    Attributes:
        claim_id: S1 to S17 as in the thread's list of mechanisms, or a name for an argument besides.
        who: who said it, and when.
        claim: what was said, in a sentence of ours.
        cases: what has to be run to test it, by name.
        judge: decides by the figures.
        live_only: why the simulated machine cannot decide it; empty if it can.
    """

    claim_id: str
    who: str
    claim: str
    cases: dict[str, Case]
    judge: Judge
    live_only: str = ""


def all_claims() -> list[Claim]:
    """Every claim, S1 to S17 first."""
    from pagetide.lab.compare.claims_cost import CLAIMS as COST
    from pagetide.lab.compare.claims_recovery import CLAIMS as RECOVERY
    from pagetide.lab.compare.claims_returning import CLAIMS as RETURNING

    found = [*RETURNING, *RECOVERY, *COST]
    numbered = [one for one in found if one.claim_id.startswith("S")]
    return [*sorted(numbered, key=lambda one: int(one.claim_id[1:])), *(one for one in found if one not in numbered)]


def claim_cells(machine: MachineName, seed: int, repeats: int) -> list[Cell]:
    """The runs that test the claims; on a live machine only those of claims that need one.

    Args:
        machine: what runs them.
        seed: of the first repeat.
        repeats: how many runs of each.
    """
    cells: list[Cell] = []
    for claim in all_claims():
        if machine == "live" and not claim.live_only:
            continue  # a live grid is short of time, and has its own cells of the mail's case
        if machine == "simulated" and claim.live_only:
            continue  # `findings` says that it was not tested, and why
        for case in claim.cases.values():
            try:
                config = case.config()
                check_machine(config, machine)
            except ConfigError:
                continue  # `findings` says that it was not tested, and why
            cells += repeats_of(msgspec.structs.replace(config, seed=seed), machine, repeats)
    return without_duplicates(cells)
