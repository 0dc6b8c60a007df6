"""Writes the report of a comparison: one HTML file that needs nothing else."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from markupsafe import Markup

from pagetide.compare.claims.advice import advice
from pagetide.compare.claims.findings import findings
from pagetide.compare.grid.axes import QUICK
from pagetide.compare.grid.setups import SETUPS
from pagetide.compare.report.bodies import Wanted, draw_bodies
from pagetide.compare.report.page import (
    advice_body,
    claims_body,
    findings_body,
    measures_body,
    tradeoffs_body,
    troubles_body,
)
from pagetide.compare.report.tradeoff import overall
from pagetide.compare.results.conditions import Condition, conditions_of
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store
from pagetide.compare.results.wording import fault_words
from pagetide.machine.faults import of_kind, parse_faults
from pagetide.pages.whole import Section, facts, page
from pagetide.whole_file import write_whole

REPORT = "report.html"
"""The report's name in its folder."""


def write_report(folder: Path, tell: Callable[[int, int], None] | None = None) -> Path:
    """Make the report of the results in a folder, beside them; its path.

    Args:
        folder: where the results are.
        tell: called once each condition is drawn, with its number from 1 and how many there are.

    Raises:
        ResultsError: there are no results, or this version cannot read them.
        OSError: it cannot be written.
    """
    with Store.open(folder, read_only=True) as store:
        text = report_html(store, tell)
    path = folder / REPORT
    write_whole(path, text.encode())
    return path


def report_html(store: Store, tell: Callable[[int, int], None] | None = None) -> str:
    """The report's text; arguments as for `write_report`."""
    runs = store.runs()
    conditions = conditions_of(runs)
    most = max((len(one.designs) for one in conditions), default=0)
    full = [one for one in conditions if 2 * len(one.designs) > most]
    others = [one for one in conditions if one not in full]
    opening = _opening(full)
    bodies, curves, tradeoffs = {}, Markup(), overall(full)
    wanted = [Wanted(store.folder, one, one is opening, one is opening and not tradeoffs) for one in conditions]
    with closing(draw_bodies(wanted)) as drawn:
        for number, (one, body) in enumerate(zip(conditions, drawn, strict=True), 1):
            if tell is not None:
                tell(number, len(conditions))
            bodies[one.name], curves, tradeoffs = body.body, curves + body.curves, [*tradeoffs, *body.tradeoffs]
    found = findings(store)
    failed = [run for run in runs if run.failed]
    sections = [
        Section("curves", "" if opening is None else opening.title, curves, listed_as="Curves"),
        Section("tradeoff", "What less memory costs", tradeoffs_body(tradeoffs, "overall"), listed_as="Trade-off"),
        Section("claims", "What the figures say to the thread's claims", claims_body(found), listed_as="Claims"),
        Section("advice", "Which configuration for which guest", advice_body(advice(store)), listed_as="Advice"),
        Section("findings", "The claims in words", findings_body(found)),
        *_workload_sections(full, bodies),
        _section("special", "Conditions that test single claims", others, bodies),
        Section("troubles", "What failed and what was left out", troubles_body(failed, store.left_out())),
        Section("measures", "How to read the tables", measures_body()),
        Section("made", "How this page was made", _made_of(store, runs)),
    ]
    return page("pagetide compare", [one for one in sections if one.body], _head(store, runs))


def _opening(conditions: Sequence[Condition]) -> Condition | None:
    """What the page opens with: the mail's case, where it is among these; otherwise the first one."""
    for one in conditions:
        if one.workload == QUICK["workload"] and of_kind(parse_faults(one.faults), "stop"):
            return one
    return conditions[0] if conditions else None


def _workload_sections(conditions: Sequence[Condition], bodies: Mapping[str, Markup]) -> list[Section]:
    sections = []
    for workload in dict.fromkeys(one.workload for one in conditions):
        own = [one for one in conditions if one.workload == workload]
        heading = f"{workload}: {SETUPS[workload]}" if workload in SETUPS else workload
        sections.append(_section(workload, heading, own, bodies, listed_as=workload))
    return sections


def _section(
    name: str, heading: str, conditions: Sequence[Condition], bodies: Mapping[str, Markup], listed_as: str = ""
) -> Section:
    workloads = {one.workload for one in conditions}
    parts = []
    for one in conditions:
        wrong = fault_words(one.faults, brief=True)
        parts.append((one.name, wrong if len(workloads) == 1 else f"{one.workload}, {wrong}"))
    return Section(name, heading, Markup().join(bodies[one.name] for one in conditions), parts, listed_as)


def _head(store: Store, runs: Sequence[Run]) -> str:
    """What was run, in a line."""
    failed = sum(run.failed for run in runs)
    parts = [f"{len(runs)} of {len(store.planned())} planned runs", f"{failed} failed"]
    parts += [f"machine {' and '.join(sorted({run.cell.machine for run in runs}))}", _begun(runs)] if runs else []
    return ", ".join(parts)


def _begun(runs: Sequence[Run]) -> str:
    return f"{min(run.started for run in runs)[:16].replace('T', ' ')} UTC"


def _made_of(store: Store, runs: Sequence[Run]) -> Markup:
    versions = runs[0].versions if runs else {}
    pairs = [
        ("costs", ", ".join(sorted({run.costs for run in runs if run.costs}))),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("made again by", shlex.join(["pagetide", "report", str(store.folder)])),
    ]
    return facts([(name, value) for name, value in pairs if value])
