"""A condition's table in the report: a row for each configuration, a column for each measure, the best marked."""

import math
from html import escape
from typing import NamedTuple

from pagetide.compare.report.palette import variable
from pagetide.compare.results.conditions import Condition, Configuration
from pagetide.compare.results.measures import MEASURES, Measure
from pagetide.compare.results.spread import Spread, best_of, spread_of

_NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"
_BEGIN_GROUPS = frozenset({measure.group: measure.name for measure in reversed(MEASURES)}.values())


class Row(NamedTuple):
    """One configuration on one condition, and its measures by name."""

    configuration: Configuration
    spreads: dict[str, Spread | None]


class Table(NamedTuple):
    """A condition's rows, and which row is best at a measure, by its name; those without a best one are left out."""

    condition: Condition
    rows: list[Row]
    best: dict[str, int]


def table_of(condition: Condition) -> Table:
    """The condition's table. The control takes no part in what is best: it pays for nothing and returns nothing."""
    rows = [
        Row(one, {measure.name: _spread(measure, one, condition) for measure in MEASURES})
        for one in condition.configurations
    ]
    rivals = [index for index, row in enumerate(rows) if row.configuration.design != "off"]
    best = {}
    for measure in MEASURES:
        winner = best_of([_as_shown(rows[index].spreads[measure.name], measure) for index in rivals], measure.better)
        if winner is not None:
            best[measure.name] = rivals[winner]
    return Table(condition, rows, best)


def _spread(measure: Measure, configuration: Configuration, condition: Condition) -> Spread | None:
    return spread_of([measure.read(run, condition.off(run.cell.config.seed)) for run in configuration.runs])


def _as_shown(spread: Spread | None, measure: Measure) -> Spread | None:
    """With no more digits than a reader sees: what looks the same is no better."""
    if spread is None:
        return None
    median, low, high = (
        float(shown(value, measure).replace(_NARROW_SPACE, "")) for value in (spread.median, spread.low, spread.high)
    )
    return Spread(median, low, high, spread.runs)


def shown(value: float, measure: Measure) -> str:
    """A measure for people; counts have no digits after the point unless they lie between two."""
    return f"{value:.0f}" if not measure.unit and value == int(value) and value < 1000 else number(value)


def number(value: float) -> str:
    """A number for people: three digits that count, and no exponent."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}".replace(",", _NARROW_SPACE)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 1 - math.floor(math.log10(size))
    return f"{value:.{digits}f}"


def html_table(table: Table) -> str:
    """The table, its first column the configuration; a best value is marked with a class and a word for readers."""
    groups: list[tuple[str, int]] = []
    for measure in MEASURES:
        if groups and groups[-1][0] == measure.group:
            groups[-1] = measure.group, groups[-1][1] + 1
        else:
            groups.append((measure.group, 1))
    faults = " and ".join(table.condition.faults)
    caption = escape(f"{table.condition.title} ({faults})" if faults else table.condition.title)
    first = "".join(f'<th colspan="{count}" scope="colgroup">{escape(name)}</th>' for name, count in groups)
    second = "".join(_heading(measure) for measure in MEASURES)
    body = "".join(_html_row(table, index) for index in range(len(table.rows)))
    return (
        f'<div class="wide"><table><caption class="hidden">{caption}</caption><thead>'
        f'<tr><th rowspan="2" scope="col">configuration</th>{first}</tr><tr>{second}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _heading(measure: Measure) -> str:
    unit = f'<span class="unit">{escape(measure.unit)}</span>' if measure.unit else ""
    names = f'data-measure="{measure.name}"{_classes(measure)} title="{escape(measure.meaning)}"'
    return f'<th scope="col" {names}>{escape(measure.heading)}{unit}</th>'


def _html_row(table: Table, index: int) -> str:
    row = table.rows[index]
    one = row.configuration
    cells = _all_failed(one) or "".join(
        _html_cell(measure, row.spreads[measure.name], table.best.get(measure.name) == index) for measure in MEASURES
    )
    mark = f'<span class="swatch" style="background: {variable(one.design)}"></span>'
    return f'<tr data-configuration="{escape(one.label)}"><th scope="row">{mark}{escape(one.label)}</th>{cells}</tr>'


def _all_failed(one: Configuration) -> str:
    """One cell that says why, if there is no run to show figures of; else nothing."""
    if one.runs or not one.failed:
        return ""
    return (
        f'<td class="failed" colspan="{len(MEASURES)}">{len(one.failed)} failed: {escape(one.failed[0].outcome)}</td>'
    )


def _html_cell(measure: Measure, spread: Spread | None, is_best: bool) -> str:
    if spread is None:
        return f"<td{_classes(measure)}>–</td>"  # noqa: RUF001 - no figure
    low, high = shown(spread.low, measure), shown(spread.high, measure)
    around = f"<small>{low}–{high}</small>" if low != high else ""  # noqa: RUF001 - from, to
    word = '<span class="hidden"> best</span>' if is_best else ""
    classes = _classes(measure, is_best)
    return f"<td{classes}>{shown(spread.median, measure)}{word}{around}</td>"


def _classes(measure: Measure, is_best: bool = False) -> str:
    names = ["begins"] * (measure.name in _BEGIN_GROUPS) + ["best"] * is_best
    return f' class="{" ".join(names)}"' if names else ""
