"""The claims of the thread, and the runs that test them. A new claim is one entry in a file claims_*.py."""

import msgspec

from pagetide.compare.claims import cost as claims_cost
from pagetide.compare.claims import recovery as claims_recovery
from pagetide.compare.claims import returning as claims_returning
from pagetide.compare.claims.claim import Claim
from pagetide.compare.grid.axes import check_machine
from pagetide.compare.results.cells import Cell, MachineName, repeats_of, without_duplicates
from pagetide.machine.config_error import ConfigError


def all_claims() -> list[Claim]:
    """Every claim, S1 to S17 first."""
    found = [*claims_returning.CLAIMS, *claims_recovery.CLAIMS, *claims_cost.CLAIMS]
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
