"""What a comparison concludes, as Markdown: a page of the documentation that can be made again from its figures."""

import re
import shlex
from collections.abc import Iterable, Sequence

from pagetide.compare.claims.advice import CPU_SLACK, FOOTPRINT_SLACK, advice
from pagetide.compare.claims.findings import findings
from pagetide.compare.claims.verdicts import Advice, Finding
from pagetide.compare.grid.setups import GAIN_MIN
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store

_RULE = (
    "The rule is the same for each. A configuration is *sound* if, on every condition of the workload and with a host "
    "that stops or is slow, it made no allocation fail falsely, lost no hint, kept vCPUs waiting for less than a "
    "thousandth of their time, and after the host's stop returned as much as without it. Of the sound ones that let "
    f"the host hold at most {100 * FOOTPRINT_SLACK:g} % more than the least of them, the one is chosen that takes "
    f"least CPU time, guest and host; among those within {100 * CPU_SLACK:g} % of that, the one with the least "
    f"footprint. If it gains less than {100 * GAIN_MIN:g} % over no "
    "reporting, the advice is not to report. Designs run with their own delays: those that scan, and shared, begin 2 s "
    "after a free, as Linux does; the others at once."
)


def markdown(store: Store) -> str:
    """A page: which configuration to use for which set-up, what became of the thread's claims, and how it was made."""
    runs = store.runs()
    parts = [
        "# Which configuration for which guest",
        f"<!-- Made by `pagetide report DIR --markdown FILE`; do not edit. -->\n\n{_made_of(runs)}",
        advice_markdown(advice(store)),
        findings_markdown(findings(store)),
    ]
    return "\n\n".join(parts) + "\n"


def advice_markdown(given: Iterable[Advice]) -> str:
    """The advice, a section a set-up."""
    parts = [_RULE]
    for one in given:
        parts += [
            f"## {_text(one.setup[:1].upper() + one.setup[1:])}",
            f"**{_text(one.choice) if one.choice else 'No choice'}**. {_text(one.why)} {_text(one.costs)}".rstrip(),
        ]
        if one.command:
            parts.append(f"```\n{one.command}\n```")
        if one.linux:
            parts.append(f"In Linux: {_text(one.linux)}")
    return "\n\n".join(parts)


def findings_markdown(found: Sequence[Finding]) -> str:
    """The findings as a table of verdicts, and a list with the figures that decide them."""
    rows = [f"| {one.claim_id} | {_text(one.claim)} | {_text(one.who)} | {one.verdict} |" for one in found]
    told = [f"- **{one.claim_id}, {one.verdict}.** {_text(one.sentence)}" for one in found]
    heading = ["## What became of the thread's claims", "", "| | claim | who | verdict |", "|---|---|---|---|"]
    return "\n".join([*heading, *rows, "", *told])


def _made_of(runs: Sequence[Run]) -> str:
    if not runs:
        return "There are no runs."
    failed = sum(run.failed for run in runs)
    machines = " and ".join(sorted({run.cell.machine for run in runs}))
    versions = ", ".join(f"{name} {version}" for name, version in runs[0].versions.items())
    began = min(run.started for run in runs)[:10]
    live = ["--machine", "live"] if machines == "live" else []
    command = shlex.join(["pagetide", "compare", *live, "--out", "DIR"])
    return (
        f"Made of {len(runs)} runs ({machines}; {failed} failed) on {began}, by `{command}` and then `pagetide report "
        f"DIR --markdown FILE`. With {_text(versions)}."
    )


def _text(text: str) -> str:
    """As it is, whatever it contains."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)
