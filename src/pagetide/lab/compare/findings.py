"""What the figures of a comparison say to the claims of the thread."""

from collections.abc import Iterable

from pagetide.lab.compare.cells import MachineName
from pagetide.lab.compare.claims import Claim, all_claims, seedless
from pagetide.lab.compare.evidence import Evidence
from pagetide.lab.compare.store import Run, Store
from pagetide.lab.compare.verdicts import Finding
from pagetide.machine.config import ConfigError
from pagetide.machine.simulated import check_simulated

_MACHINES: tuple[MachineName, ...] = ("live", "simulated")


def findings(store: Store) -> list[Finding]:
    """A finding for each claim, from S1 to S17 and then the arguments besides; by live runs where there are those."""
    return findings_of(store.runs())


def findings_of(runs: Iterable[Run]) -> list[Finding]:
    """The same of these runs."""
    by_settings: dict[tuple[str, bytes], list[Run]] = {}
    for run in runs:
        by_settings.setdefault((run.cell.machine, seedless(run.cell.config)), []).append(run)
    return [_finding(claim, by_settings) for claim in all_claims()]


def _finding(claim: Claim, by_settings: dict[tuple[str, bytes], list[Run]]) -> Finding:
    problem = "its runs are not among these results"
    for machine in _MACHINES:
        try:
            wanted = {name: seedless(case.config()) for name, case in claim.cases.items()}
            found = {name: by_settings.get((machine, settings), []) for name, settings in wanted.items()}
        except ConfigError as error:
            problem = str(error)
            break
        failed = [run for group in found.values() for run in group if run.failed]
        if any(found.values()) and failed:
            problem = f"a run of it failed: {failed[0].outcome}"
        elif all(found.values()):
            verdict, sentence = claim.judge(Evidence(found))
            keys = tuple(run.key for group in found.values() for run in group)
            which = "live" if machine == "live" else "simulated"
            return Finding(
                claim_id=claim.claim_id, who=claim.who, claim=claim.claim, verdict=verdict,
                sentence=f"{sentence} ({which}, {_repeats(found)})", runs=keys,
            )  # fmt: skip
        elif machine == "simulated":
            problem = _why_not_simulated(claim) or problem
    return Finding(
        claim_id=claim.claim_id, who=claim.who, claim=claim.claim, verdict="not tested",
        sentence=f"Not tested: {problem}.",
    )  # fmt: skip


def _repeats(found: dict[str, list[Run]]) -> str:
    count = min(len(group) for group in found.values())
    return "1 run each" if count == 1 else f"medians of {count} runs each"


def _why_not_simulated(claim: Claim) -> str | None:
    """Why the simulated machine cannot test a claim, if it cannot."""
    for case in claim.cases.values():
        try:
            check_simulated(case.config())
        except ConfigError as error:
            return str(error)
    return None
