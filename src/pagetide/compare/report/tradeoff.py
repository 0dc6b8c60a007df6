"""The trade-off: what the host holds against what that costs, and which configurations nobody beats at both."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagetide.compare.results.conditions import Condition, Configuration
from pagetide.compare.results.measures import cpu_s
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import Spread, spread_of
from pagetide.units import GIB


class Point(NamedTuple):
    """One configuration: what it costs, and what the host holds, each with its spread."""

    design: str
    label: str
    cost: Spread
    footprint: Spread


class Tradeoff(NamedTuple):
    """A picture of a trade-off.

    Attributes:
        title: what is traded.
        cost_label: of the axis along, with its unit.
        footprint_label: of the axis up, with its unit.
        points: one a configuration.
    """

    title: str
    cost_label: str
    footprint_label: str
    points: list[Point]

    @property
    def is_telling(self) -> bool:
        """Whether there is anything to compare: several points, and not all for nothing."""
        return len(self.points) > 1 and any(point.cost.high for point in self.points)


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats at both, by their medians, from the cheapest on."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost.median, one.footprint.median)):
        if not found or point.footprint.median < found[-1].footprint.median:
            found.append(point)
    return found


def tradeoffs_of(condition: Condition) -> list[Tradeoff]:
    """Footprint against CPU time and against refaults, on one condition."""
    cpu = _points(condition.configurations, cpu_s)
    refaults = _points(condition.configurations, lambda run: _in_gib(run, "refaulted_bytes"))
    made = [
        Tradeoff("Footprint against CPU", "CPU, guest and host, s", "footprint, GiB", cpu),
        Tradeoff("Footprint against refaults", "refaulted, GiB", "footprint, GiB", refaults),
    ]
    return [one for one in made if one.is_telling]


def overall(conditions: Sequence[Condition]) -> list[Tradeoff]:
    """The same over all conditions without a fault: each measure as a share of `off`, averaged over the conditions.

    Only configurations that were run on every one of them have a point.
    """
    whole = [one for one in conditions if not one.faults and one.has_control and len(one.configurations) > 2]
    if len(whole) < 2:
        return []
    labels = [one.label for one in whole[0].configurations]
    for condition in whole[1:]:
        there = {one.label for one in condition.configurations}
        labels = [label for label in labels if label in there]
    cpu, refaults = [], []
    for label in labels:
        found = [(condition, one) for condition in whole for one in condition.configurations if one.label == label]
        held = _mean_share(
            found, lambda run, off: _ratio(run.figures["mean_resident_bytes"], off.figures["mean_resident_bytes"])
        )
        spent = _mean_share(found, lambda run, off: _ratio(cpu_s(run), cpu_s(off)))
        again = _mean_share(found, lambda run, _: _ratio(run.figures["refaulted_bytes"], run.cell.config.ram_bytes))
        design = found[0][1].design
        if held is not None and spent is not None:
            cpu.append(Point(design, label, spent, held))
        if held is not None and again is not None:
            refaults.append(Point(design, label, again, held))
    names = ", ".join(dict.fromkeys(one.workload for one in whole))
    made = [
        Tradeoff(
            f"Footprint against CPU, mean of {names}", "CPU, guest and host, % of off", "footprint, % of off", cpu
        ),
        Tradeoff(
            f"Footprint against refaults, mean of {names}", "refaulted, % of RAM", "footprint, % of off", refaults
        ),
    ]
    return [one for one in made if one.is_telling]


def _points(configurations: Sequence[Configuration], read_cost: Callable[[Run], float | None]) -> list[Point]:
    points = []
    for one in configurations:
        cost = spread_of([read_cost(run) for run in one.runs])
        footprint = spread_of([_in_gib(run, "mean_resident_bytes") for run in one.runs])
        if cost is not None and footprint is not None:
            points.append(Point(one.design, one.label, cost, footprint))
    return points


def _in_gib(run: Run, name: str) -> float | None:
    value = run.figures.get(name)
    return None if value is None else value / GIB


def _ratio(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else 100 * value / whole


def _mean_share(
    found: Sequence[tuple[Condition, Configuration]], read: Callable[[Run, Run], float | None]
) -> Spread | None:
    """A share's mean over conditions, by repeat, with its spread over repeats."""
    by_repeat: dict[int, list[float]] = {}
    for condition, configuration in found:
        for run in configuration.runs:
            off = condition.off(run.cell.config.seed)
            share = None if off is None else read(run, off)
            if share is None:
                return None
            by_repeat.setdefault(run.cell.repeat, []).append(share)
    whole = [shares for shares in by_repeat.values() if len(shares) == len(found)]
    return spread_of([statistics.fmean(shares) for shares in whole])
