"""The report's parts as HTML: text, tables and pictures put together; no script, and nothing from elsewhere."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple, get_args

from pagetide.compare.claims.verdicts import Advice, Finding, Verdict
from pagetide.compare.report.condition_table import Table, html_table, number
from pagetide.compare.report.palette import LOOKS, variable
from pagetide.compare.report.plots import Curve, draw_orders, draw_panel, draw_tradeoff
from pagetide.compare.report.tradeoff import Tradeoff, frontier
from pagetide.compare.results.conditions import Condition, Configuration
from pagetide.compare.results.measures import MEASURES
from pagetide.compare.results.orders import order_curves
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
    body: str
    parts: Sequence[tuple[str, str]] = ()


def page(title: str, sections: Sequence[Section], head: str) -> str:
    """The whole page.

    Args:
        title: of the page, as text.
        sections: what it is made of.
        head: what stands before the sections, as HTML.
    """
    links = "".join(f'<li><a href="#{one.name}">{escape(one.heading)}</a>{_parts(one)}</li>' for one in sections)
    bodies = "".join(f'<section id="{one.name}"><h2>{escape(one.heading)}</h2>{one.body}</section>' for one in sections)
    bodies, classes = _shared_styles(bodies)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style()}{classes}</style></head><body>\n"
        f"<header><h1>{escape(title)}</h1>{head}</header><nav><ul>{links}</ul></nav><main>{bodies}</main></body></html>\n"
    )


def _shared_styles(text: str) -> tuple[str, str]:
    """Pictures with classes in place of their styles, which are few, and the style sheet of these."""
    names: dict[str, str] = {}

    def shared(svg: re.Match[str]) -> str:
        return re.sub(r' style="([^"]*)"', lambda one: f' class="{names.setdefault(one[1], f"p{len(names)}")}"', svg[0])

    text = _shared_marks(re.sub(r"<svg.*?</svg>", shared, text, flags=re.DOTALL))
    return text, "".join(f".{name} {{{style}}}\n" for style, name in names.items())


def _shared_marks(text: str) -> str:
    """Pictures that draw the same mark refer to that of the first one."""
    first: dict[str, str] = {}
    others: dict[str, str] = {}

    def once(defs: re.Match[str]) -> str:
        if first.setdefault(defs[2], defs[1]) == defs[1]:
            return defs[0]
        others[defs[1]] = first[defs[2]]
        return ""

    text = re.sub(r'<defs><path id="([^"]*)"([^>]*)/></defs>', once, text)
    return re.sub(r'href="#([^"]*)"', lambda link: f'href="#{others.get(link[1], link[1])}"', text)


def _parts(section: Section) -> str:
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading in section.parts)
    return f"<ul>{links}</ul>" if links else ""


def style() -> str:
    """The page's style sheet, with the designs' colours."""
    css = Path(__file__).with_name("report.css").read_text()
    light = "".join(f"--design-{design}: {look.light};" for design, look in LOOKS.items())
    dark = "".join(f"--design-{design}: {look.dark};" for design, look in LOOKS.items())
    return f"{css}:root {{{light}}} @media screen and (prefers-color-scheme: dark) {{:root {{{dark}}}}}"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of what was run, where and when."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


def findings_body(found: Sequence[Finding]) -> str:
    """The findings, each with its verdict in words and in colour."""
    items = "".join(
        f'<li class="{one.verdict.replace(" ", "-")}" id="finding-{escape(one.claim_id)}">'
        f'<p><strong class="claim">{escape(one.claim_id)}</strong> {escape(one.claim)} '
        f'<span class="soft">{escape(one.who)}</span></p>'
        f'<p><span class="verdict">{escape(one.verdict.capitalize())}.</span> {escape(one.sentence)}</p></li>'
        for one in found
    )
    return f'{_verdicts(found)}<ul class="findings">{items}</ul>'


def _verdicts(found: Sequence[Finding]) -> str:
    """Which claims have which verdict, at a glance."""
    rows = []
    for verdict in get_args(Verdict):
        claims = [escape(one.claim_id) for one in found if one.verdict == verdict]
        links = " ".join(f'<a href="#finding-{claim}">{claim}</a>' for claim in claims)
        if claims:
            name = verdict.replace(" ", "-")
            rows.append(f'<dt class="{name}"><span class="verdict">{len(claims)} {verdict}</span></dt><dd>{links}</dd>')
    return f'<dl class="facts">{"".join(rows)}</dl>'


def advice_body(advised: Sequence[Advice]) -> str:
    """Which configuration for which set-up."""
    items = []
    for one in advised:
        choice = escape(one.choice) if one.choice else "no choice"
        command = f"<pre>{escape(one.command)}</pre>" if one.command else ""
        linux = f'<p class="soft">In Linux: {escape(one.linux)}</p>' if one.linux else ""
        items.append(
            f'<li class="{"held" if one.choice else "undecided"}"><p><strong>{escape(one.setup)}</strong>: '
            f'<span class="verdict">{choice}</span></p><p>{escape(one.why)} {escape(one.costs)}</p>'
            f"{command}{linux}</li>"
        )
    return f'<ul class="findings">{"".join(items)}</ul>'


def tradeoffs_body(tradeoffs: Sequence[Tradeoff], name: str) -> str:
    """Pictures of trade-offs."""
    if not tradeoffs:
        return ""
    figures = "".join(_tradeoff(one, f"{name}-{index}") for index, one in enumerate(tradeoffs))
    return f'<div class="tradeoffs">{figures}</div>'


def _tradeoff(tradeoff: Tradeoff, name: str) -> str:
    best = ", ".join(point.label for point in frontier(tradeoff.points))
    described = "; ".join(
        f"{one.label}: {number(one.cost.median)}, {number(one.footprint.median)}" for one in tradeoff.points
    )
    drawn = draw_tradeoff(
        tradeoff, name, f"{tradeoff.title} ({tradeoff.cost_label}; {tradeoff.footprint_label}). {described}"
    )
    return (
        f"<figure>{drawn}<figcaption><strong>{escape(tradeoff.title)}.</strong> "
        f'<span class="soft">Dashed, nothing is better at both: {escape(best)}</span></figcaption></figure>'
    )


def condition_body(table: Table, tradeoffs: Sequence[Tradeoff], store: Store) -> str:
    """One condition: curves of every configuration, the table, the trade-offs, and what the order does."""
    condition = table.condition
    return (
        f'<article id="{condition.name}"><h3>{escape(condition.title)}</h3>{_details(condition)}'
        f"{_panels(table, store)}{html_table(table)}{tradeoffs_body(tradeoffs, f'{condition.name}-trade')}"
        f"{_orders(condition)}</article>"
    )


def _details(condition: Condition) -> str:
    faults = "".join(f" <code>--fault {escape(fault)}</code>" for fault in condition.faults)
    details = escape(condition.details)
    return f'<p class="soft">{details}{faults}</p>' if details or faults else ""


def _orders(condition: Condition) -> str:
    """Measures against the reporting order, where there are several."""
    curves = order_curves(condition)
    end = max((order for curve in curves for order, _ in curve.spreads), default=0)
    figures = []
    for index, curve in enumerate(curves):
        described = "; ".join(f"order {order}: {number(spread.median)}" for order, spread in curve.spreads)
        title = f"{curve.design}, {curve.label}, by reporting order. {described}"
        name = f"{condition.name}-order-{index}"
        drawn = draw_orders(curve.spreads, curve.label, curve.design, end, name, title)
        figures.append(f"<figure>{drawn}</figure>")
    if not figures:
        return ""
    design = " and ".join(dict.fromkeys(curve.design for curve in curves))
    return f'<h4>What the reporting order does ({design})</h4><div class="panels orders">{"".join(figures)}</div>'


class Panel(NamedTuple):
    """A configuration's curve: whose it is, and what is drawn."""

    configuration: Configuration
    drawn: str

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
        panels.append(Panel(one, drawn))
    return panels


def _panels(table: Table, store: Store) -> str:
    panels = panels_of(table.condition, store)
    if not panels:
        return ""
    drawn = "".join(
        '<figure><figcaption><span><span class="swatch" style="background: '
        f'{variable(panel.configuration.design)}"></span>{escape(panel.configuration.label)}</span>'
        f'<span class="soft">{panel.mean}</span></figcaption>{panel.drawn}</figure>'
        for panel in panels
    )
    seed = panels[0].configuration.runs[0].cell.config.seed
    legend = (
        '<div class="legend"><span><span class="swatch" style="background: var(--guest)"></span>area: the guest uses'
        '</span><span><span class="stroke"></span>line: the host holds</span>'
        f"<span>the run with seed {seed}, over the time of the run</span></div>"
    )
    return f'{legend}<div class="panels">{drawn}</div>'


def _curve(store: Store, run: Run) -> Curve:
    samples = store.samples(run.key)
    return Curve(samples["t_s"], samples["guest_used_bytes"], samples["host_resident_bytes"])


def troubles_body(failed: Sequence[Run], left_out: Sequence[LeftOut]) -> str:
    """Runs that failed, with what replays them, and combinations that do not fit."""
    items = "".join(f"<li>{escape(run.outcome)}<pre>{escape(run.cell.replay)}</pre></li>" for run in failed)
    body = f"<p>{len(failed)} runs failed. These commands run them again.</p><ul>{items}</ul>" if failed else ""
    if left_out:
        rows = "".join(f"<li>{escape(one.what)}: {escape(one.why)}</li>" for one in left_out)
        body += f"<details><summary>{len(left_out)} combinations do not fit together</summary><ul>{rows}</ul></details>"
    return body


def measures_body() -> str:
    """What each column means."""
    rows = "".join(
        f"<dt>{escape(', '.join(filter(None, (one.group, one.heading, one.unit))))}</dt><dd>{escape(one.meaning)}</dd>"
        for one in MEASURES
    )
    return (
        "<p>A figure is the median over the repeats, which differ by the seed alone; below it stand the least and the "
        "largest where they differ. A value is marked as best only if its worst repeat is better than the best repeat "
        f'of every other, in the digits that are shown; off takes no part in that.</p><dl class="facts">{rows}</dl>'
    )
