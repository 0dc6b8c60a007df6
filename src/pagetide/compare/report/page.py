"""The report's parts as HTML: text, tables and pictures put together; no script, and nothing from elsewhere."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

from markupsafe import Markup

from pagetide.compare.claims.verdicts import Advice, Finding, Verdict
from pagetide.compare.report.claim_bars import MARKS, draw_bars
from pagetide.compare.report.condition_table import Table, number
from pagetide.compare.report.plots import Curve, draw_orders, draw_panel, draw_tradeoff
from pagetide.compare.report.templating import html
from pagetide.compare.report.tradeoff import Tradeoff, frontier
from pagetide.compare.results.conditions import Condition, Configuration
from pagetide.compare.results.measures import MEASURES
from pagetide.compare.results.orders import OrderCurve, order_curves
from pagetide.compare.results.records import LeftOut, Run
from pagetide.compare.results.store import Store
from pagetide.pages.whole import made
from pagetide.units import GIB

T = TypeVar("T")

_VERDICT_MARKS = {"held": MARKS[True], "not held": MARKS[False], "undecided": MARKS[None]}


def claims_body(found: Sequence[Finding]) -> Markup:
    """The claims, each with its verdict and the figures that decide it as pictures, and first all verdicts."""
    by_verdict = {one: [finding.claim_id for finding in found if finding.verdict == one] for one in get_args(Verdict)}
    tested = [
        {"finding": one, "pictures": list(zip(one.bars, draw_bars(one.bars, f"bars-{one.claim_id}"), strict=True))}
        for one in found
        if one.verdict != "not tested"
    ]
    verdicts = {verdict: claims for verdict, claims in by_verdict.items() if claims}
    return html("claims.html", tested=tested, verdicts=verdicts, marks=MARKS, verdict_marks=_VERDICT_MARKS)


def findings_body(found: Sequence[Finding]) -> Markup:
    """Each verdict with the figures that decide it in words; what was not tested is told once a reason."""
    tested = [one for one in found if one.verdict != "not tested"]
    untested = _by(lambda one: one.sentence, [one for one in found if one.verdict == "not tested"])
    return html(
        "findings.html", tested=tested, untested=[(why, [one.claim_id for one in same]) for why, same in untested]
    )


def _by(key: Callable[[T], str], every: Sequence[T]) -> list[tuple[str, list[T]]]:
    """What is alike together, in the order of the first ones."""
    groups: dict[str, list[T]] = {}
    for one in every:
        groups.setdefault(key(one), []).append(one)
    return list(groups.items())


def advice_body(advised: Sequence[Advice]) -> Markup:
    """Which configuration for which set-up; those without a choice are told once a reason."""
    chosen = [one for one in advised if one.choice is not None]
    others = _by(lambda one: one.why, [one for one in advised if one.choice is None])
    return html("advice.html", advised=chosen, others=[(why, [one.setup for one in same]) for why, same in others])


def tradeoffs_body(tradeoffs: Sequence[Tradeoff], name: str) -> Markup:
    """Pictures of trade-offs."""
    if not tradeoffs:
        return Markup()
    return html("tradeoffs.html", figures=[_tradeoff(one, f"{name}-{index}") for index, one in enumerate(tradeoffs)])


def _tradeoff(tradeoff: Tradeoff, name: str) -> dict[str, Any]:
    described = "; ".join(
        f"{one.label}: {number(one.cost.median)}, {number(one.footprint.median)}" for one in tradeoff.points
    )
    description = f"{tradeoff.title} ({tradeoff.cost_label}; {tradeoff.footprint_label}). {described}"
    return {
        "title": tradeoff.title,
        "drawn": made(draw_tradeoff(tradeoff, name, description)),
        "best": [point.label for point in frontier(tradeoff.points)],
    }


def condition_body(
    table: Table, tradeoffs: Sequence[Tradeoff], panels: Sequence["Panel"], *, opens: bool = False
) -> Markup:
    """One condition: curves of its configurations, the table, the trade-offs, and what the order does.

    Args:
        table: of the condition.
        tradeoffs: those that are drawn here.
        panels: the curves that are.
        opens: whether the page opens with other curves of it.
    """
    condition = table.condition
    curves = order_curves(condition)
    return html(
        "condition.html",
        condition=condition,
        curves=curves_body(panels),
        opens=opens,
        table=table,
        measures=MEASURES,
        tradeoffs=tradeoffs_body(tradeoffs, f"{condition.name}-trade"),
        orders=_orders(condition, curves),
        order_designs=dict.fromkeys(curve.design for curve in curves),
    )


def curves_body(panels: Sequence["Panel"]) -> Markup:
    """Curves side by side; nothing without any."""
    return html("curves.html", panels=panels) if panels else Markup()


def _orders(condition: Condition, curves: Sequence[OrderCurve]) -> list[Markup]:
    """Measures against the reporting order, where there are several."""
    end = max((order for curve in curves for order, _ in curve.spreads), default=0)
    drawn = []
    for index, curve in enumerate(curves):
        described = "; ".join(f"order {order}: {number(spread.median)}" for order, spread in curve.spreads)
        title = f"{curve.design}, {curve.label}, by reporting order. {described}"
        name = f"{condition.name}-order-{index}"
        drawn.append(made(draw_orders(curve.spreads, curve.label, curve.design, end, name, title)))
    return drawn


class Panel(NamedTuple):
    """A configuration's curve: whose it is, and what is drawn."""

    configuration: Configuration
    drawn: Markup

    @property
    def mean(self) -> str:
        """What the host held on average; nothing where that is not known."""
        held = self.configuration.runs[0].figures["mean_resident_bytes"]
        return "" if held is None else f"{number(held / GIB)} GiB on average"


def panels_of(condition: Condition, store: Store) -> list[Panel]:
    """A picture of the first run of each configuration, all on the same axes."""
    shown = [one for one in condition.configurations if one.runs]
    curves = [_curve(store, one.runs[0]) for one in shown]
    end_s = max((curve.t_s[-1] for curve in curves), default=0.0)
    top_bytes = max((max(one.host_resident_bytes.max(), one.guest_used_bytes.max()) for one in curves), default=0.0)
    panels = []
    for index, (one, curve) in enumerate(zip(shown, curves, strict=True)):
        described = f"{one.label}: guest use and host residency over time"
        drawn = draw_panel(curve, one.design, end_s, top_bytes, f"{condition.name}-{index}", described)
        panels.append(Panel(one, made(drawn)))
    return panels


def _curve(store: Store, run: Run) -> Curve:
    samples = store.samples(run.key)
    return Curve(samples["t_s"], samples["guest_used_bytes"], samples["host_resident_bytes"])


def troubles_body(failed: Sequence[Run], left_out: Sequence[LeftOut]) -> Markup:
    """What failed, once a kind, with what replays it, and combinations that do not fit, by why."""
    if not failed and not left_out:
        return Markup()
    kinds = [
        {
            "outcome": runs[0].outcome,
            "runs": runs,
            "where": ", ".join(
                dict.fromkeys(f"{run.cell.config.design} on {run.cell.config.workload}" for run in runs)
            ),
        }
        for _, runs in _by(lambda run: re.sub(r"\d+", "", run.outcome), failed)
    ]
    reasons = [(why, [one.what for one in same]) for why, same in _by(lambda one: one.why, left_out)]
    return html("troubles.html", failed=kinds, left_out=reasons)


def measures_body() -> Markup:
    """What each column means."""
    return html("measures.html", measures=MEASURES)
