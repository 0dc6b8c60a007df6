"""What the reporting order does, where a condition has one design with several: the measures against the order."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pagetide.compare.results.conditions import Condition
from pagetide.compare.results.measures import cpu_s, kept_bytes
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import Spread, spread_of
from pagetide.units import MIB

ORDERS_MIN = 3
"""Fewer make no curve."""


class OrderCurve(NamedTuple):
    """One measure of one design against the order.

    Attributes:
        design: its name.
        label: the measure, with its unit.
        spreads: (order, the measure over the repeats), by order.
    """

    design: str
    label: str
    spreads: list[tuple[int, Spread]]


def order_curves(condition: Condition) -> list[OrderCurve]:
    """Footprint beyond what the guest used, CPU time, refaults and reports of every design with several orders.

    The configurations of a curve differ by the order alone.
    """
    groups: dict[bytes, list[tuple[int, list[Run]]]] = {}
    designs: dict[bytes, str] = {}
    for one in condition.configurations:
        if one.runs:
            others = {name: value for name, value in one.settings.items() if name != "order"}
            group = msgspec.json.encode(others)
            designs[group] = one.design
            groups.setdefault(group, []).append((one.settings["order"], one.runs))
    curves = []
    for group, ways in groups.items():
        if len(ways) < ORDERS_MIN:
            continue
        for label, read in _MEASURES.items():
            found = [
                (order, spread)
                for order, runs in sorted(ways, key=lambda way: way[0])
                if (spread := spread_of([read(run) for run in runs])) is not None
            ]
            if len(found) >= ORDERS_MIN:
                curves.append(OrderCurve(designs[group], label, found))
    return curves


def _kept_mib(run: Run) -> float | None:
    value = kept_bytes(run)
    return None if value is None else value / MIB


def _refaulted_mib(run: Run) -> float | None:
    value = run.figures.get("refaulted_bytes")
    return None if value is None else value / MIB


_MEASURES: dict[str, Callable[[Run], float | None]] = {
    "held beyond what is used, MiB": _kept_mib,
    "CPU, guest and host, s": cpu_s,
    "refaulted, MiB": _refaulted_mib,
    "reports": lambda run: run.figures.get("reports"),
}
