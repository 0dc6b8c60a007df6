"""What the figures of a comparison say to the claims of the thread."""

from collections.abc import Iterable

from pagetide.compare.claims.claim import Claim
from pagetide.compare.claims.evidence import Evidence, NotMeasuredError
from pagetide.compare.claims.registry import all_claims
from pagetide.compare.claims.verdicts import Finding
from pagetide.compare.results.cells import MachineName, seedless
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import REPEATS_MIN
from pagetide.compare.results.store import Store
from pagetide.machine.config_error import ConfigError

_TOO_FEW = f"too few to decide, which takes {REPEATS_MIN}"

_NOT_THERE = "its runs are not among these results, but `pagetide compare` by itself has them"

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
    """By the first machine that has run all cases often enough to decide, the live one before the simulated."""
    problem, too_few = "", None
    for machine in _MACHINES[:1] if claim.live_only else _MACHINES:
        try:
            wanted = {name: seedless(case.config()) for name, case in claim.cases.items()}
        except ConfigError as error:
            problem = str(error)
            break
        found = {name: by_settings.get((machine, settings), []) for name, settings in wanted.items()}
        failed = [run for group in found.values() for run in group if run.failed]
        if failed:
            problem = f"a run of it failed: {failed[0].outcome}"
        elif all(found.values()):
            try:
                judged = claim.judge(Evidence(found))
            except NotMeasuredError as error:
                problem = f"its runs do not tell {error}"
                continue
            few = min(map(len, found.values())) < REPEATS_MIN
            finding = Finding(
                claim_id=claim.claim_id,
                who=claim.who,
                claim=claim.claim,
                verdict="undecided" if few else judged.verdict,
                sentence=f"{judged.sentence} ({machine}, {_repeats(found)}{f': {_TOO_FEW}' if few else ''})",
                doubt=f"{_repeats(found)}: {_TOO_FEW}" if few else "",
                bars=judged.bars,
                runs=tuple(run.key for group in found.values() for run in group),
            )
            if not few:
                return finding
            too_few = too_few or finding
    if too_few is not None:
        return too_few
    return Finding(
        claim_id=claim.claim_id,
        who=claim.who,
        claim=claim.claim,
        verdict="not tested",
        sentence=_sentence(
            problem
            or claim.live_only
            or "its runs are not among these results, but `pagetide compare` by itself has them"
        ),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _repeats(found: dict[str, list[Run]]) -> str:
    count = min(len(group) for group in found.values())
    return "1 run each" if count == 1 else f"medians of {count} runs each"
