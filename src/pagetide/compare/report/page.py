"""The report's parts as HTML: text, tables and pictures put together; no script, and nothing from elsewhere."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from markupsafe import Markup

from pagetide.compare.claims.verdicts import Advice, Finding, Verdict
from pagetide.compare.report.condition_table import Table, number
from pagetide.compare.report.palette import LOOKS
from pagetide.compare.report.plots import Curve, draw_orders, draw_panel, draw_tradeoff
from pagetide.compare.report.templating import html, text
from pagetide.compare.report.tradeoff import Tradeoff, frontier
from pagetide.compare.results.conditions import Condition, Configuration
from pagetide.compare.results.measures import MEASURES
from pagetide.compare.results.orders import OrderCurve, order_curves
from pagetide.compare.results.records import LeftOut, Run
from pagetide.compare.results.store import Store
from pagetide.units import GIB


class Section(NamedTuple):
    """A section of the page.

    Attributes:
        name: its identifier.
        heading: as text.
        body: as HTML.
        parts: (identifier, heading as text) of what is in it and is listed in the table of contents.
    """

    name: str
    heading: str
    body: Markup
    parts: Sequence[tuple[str, str]] = ()


def page(title: str, sections: Sequence[Section], head: Markup) -> str:
    """The whole page.

    Args:
        title: of the page, as text.
        sections: what it is made of.
        head: what stands before the sections, as HTML.
    """
    body, classes = _shared_styles(html("sections.html", sections=sections))
    values = {"title": title, "head": head, "listed": sections, "sections": _made(body), "classes": _made(classes)}
    return html("page.html", style=_made(style()), **values) + "\n"


def _made(text: str) -> Markup:
    """What our own pictures and style sheets are made of is HTML."""
    return Markup(text)  # noqa: S704 - matplotlib and ElementTree escape the words in pictures


def _shared_styles(body: str) -> tuple[str, str]:
    """Pictures with classes in place of their styles, which are few, and the style sheet of these."""
    names: dict[str, str] = {}

    def shared(svg: re.Match[str]) -> str:
        return re.sub(r' style="([^"]*)"', lambda one: f' class="{names.setdefault(one[1], f"p{len(names)}")}"', svg[0])

    body = _shared_marks(re.sub(r"<svg.*?</svg>", shared, str(body), flags=re.DOTALL))
    return body, "".join(f".{name} {{{style}}}\n" for style, name in names.items())


def _shared_marks(body: str) -> str:
    """Pictures that draw the same mark refer to that of the first one."""
    first: dict[str, str] = {}
    others: dict[str, str] = {}

    def once(defs: re.Match[str]) -> str:
        if first.setdefault(defs[2], defs[1]) == defs[1]:
            return defs[0]
        others[defs[1]] = first[defs[2]]
        return ""

    body = re.sub(r'<defs><path id="([^"]*)"([^>]*)/></defs>', once, body)
    return re.sub(r'href="#([^"]*)"', lambda link: f'href="#{others.get(link[1], link[1])}"', body)


def style() -> str:
    """The page's style sheet, with the designs' colours."""
    return text("report.css", looks=LOOKS)


def facts(pairs: Sequence[tuple[str, str]]) -> Markup:
    """A list of what was run, where and when."""
    return html("facts.html", pairs=pairs)


def findings_body(found: Sequence[Finding]) -> Markup:
    """The findings, each with its verdict in words and in colour, and first which claims have which verdict."""
    by_verdict = {one: [finding.claim_id for finding in found if finding.verdict == one] for one in get_args(Verdict)}
    verdicts = {verdict: claims for verdict, claims in by_verdict.items() if claims}
    return html("findings.html", found=found, verdicts=verdicts)


def advice_body(advised: Sequence[Advice]) -> Markup:
    """Which configuration for which set-up."""
    return html("advice.html", advised=advised)


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
        "drawn": _made(draw_tradeoff(tradeoff, name, description)),
        "best": [point.label for point in frontier(tradeoff.points)],
    }


def condition_body(table: Table, tradeoffs: Sequence[Tradeoff], store: Store) -> Markup:
    """One condition: curves of every configuration, the table, the trade-offs, and what the order does."""
    condition = table.condition
    panels = panels_of(condition, store)
    curves = order_curves(condition)
    return html(
        "condition.html",
        condition=condition,
        panels=panels,
        seed=panels[0].configuration.runs[0].cell.config.seed if panels else None,
        table=table,
        measures=MEASURES,
        tradeoffs=tradeoffs_body(tradeoffs, f"{condition.name}-trade"),
        orders=_orders(condition, curves),
        order_designs=dict.fromkeys(curve.design for curve in curves),
    )


def _orders(condition: Condition, curves: Sequence[OrderCurve]) -> list[Markup]:
    """Measures against the reporting order, where there are several."""
    end = max((order for curve in curves for order, _ in curve.spreads), default=0)
    drawn = []
    for index, curve in enumerate(curves):
        described = "; ".join(f"order {order}: {number(spread.median)}" for order, spread in curve.spreads)
        title = f"{curve.design}, {curve.label}, by reporting order. {described}"
        name = f"{condition.name}-order-{index}"
        drawn.append(_made(draw_orders(curve.spreads, curve.label, curve.design, end, name, title)))
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
        panels.append(Panel(one, _made(drawn)))
    return panels


def _curve(store: Store, run: Run) -> Curve:
    samples = store.samples(run.key)
    return Curve(samples["t_s"], samples["guest_used_bytes"], samples["host_resident_bytes"])


def troubles_body(failed: Sequence[Run], left_out: Sequence[LeftOut]) -> Markup:
    """Runs that failed, with what replays them, and combinations that do not fit."""
    return html("troubles.html", failed=failed, left_out=left_out) if failed or left_out else Markup()


def measures_body() -> Markup:
    """What each column means."""
    return html("measures.html", measures=MEASURES)
