"""What a comparison concludes, as Markdown: a page of the documentation that can be made again from its figures."""

import shlex
from collections.abc import Sequence
from typing import Any

from pagetide.compare.claims.advice import CPU_SLACK, FOOTPRINT_SLACK, advice
from pagetide.compare.claims.findings import findings
from pagetide.compare.claims.verdicts import Advice, Finding
from pagetide.compare.grid.setups import GAIN_MIN
from pagetide.compare.report.templating import text
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store


def markdown(store: Store) -> str:
    """A page: which configuration to use for which set-up, what became of the thread's claims, and how it was made."""
    runs = store.runs()
    parts = {"advice": advice_markdown(advice(store)), "findings": findings_markdown(findings(store))}
    return text("choosing.md", runs=runs, **_made_of(runs), **parts) + "\n"


def advice_markdown(given: Sequence[Advice]) -> str:
    """The advice, a section a set-up."""
    slacks = {"footprint_slack": FOOTPRINT_SLACK, "cpu_slack": CPU_SLACK, "gain_min": GAIN_MIN}
    return text("advice.md", given=given, **{name: f"{100 * slack:g}" for name, slack in slacks.items()})


def findings_markdown(found: Sequence[Finding]) -> str:
    """The findings as a table of verdicts, and a list with the figures that decide them."""
    return text("findings.md", found=found)


def _made_of(runs: Sequence[Run]) -> dict[str, Any]:
    if not runs:
        return {}
    machines = " and ".join(sorted({run.cell.machine for run in runs}))
    live = ["--machine", "live"] if machines == "live" else []
    return {
        "machines": machines,
        "failed": sum(run.failed for run in runs),
        "began": min(run.started for run in runs)[:10],
        "command": shlex.join(["pagetide", "compare", *live, "--out", "DIR"]),
        "versions": ", ".join(f"{name} {version}" for name, version in runs[0].versions.items()),
    }
