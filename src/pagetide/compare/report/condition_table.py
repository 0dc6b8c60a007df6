"""A condition's table in the report: a row for each configuration, a column for each measure, the best marked."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

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


def groups_of(measures: Sequence[Measure]) -> list[tuple[str, int]]:
    """The groups that stand side by side, each with how many columns it has."""
    return [(name, len(list(members))) for name, members in itertools.groupby(measures, key=lambda one: one.group)]


def begins_group(measure: Measure) -> bool:
    """Whether it is the first of its group."""
    return measure.name in _BEGIN_GROUPS
