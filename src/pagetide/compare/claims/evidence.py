"""What a claim is tested by: the runs of a few cases, and comparisons of them that allow for their spread."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pagetide.compare.claims import bars
from pagetide.compare.claims.bars import Bar, Bars, Bound
from pagetide.compare.claims.words import Kind
from pagetide.compare.grid.axes import NO_FAULT, condition_config, grid_defaults
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import Spread, spread_of
from pagetide.machine.config import RunConfig


class Case(NamedTuple):
    """One configuration on one condition.

    Attributes:
        design: its name.
        workload: its name.
        fault: as the grid has it.
        oom: what is done against false OOMs.
        settings: further ones, by public name; the grid's own for the workload come besides.
    """

    design: str
    workload: str
    fault: str = NO_FAULT
    oom: str = "wait"
    settings: Mapping[str, Any] = {}

    def config(self) -> RunConfig:
        """Its settings.

        Raises:
            ConfigError: they do not fit together.
        """
        settings = {**grid_defaults(self.workload), **self.settings}
        return condition_config(self.workload, self.fault, self.oom, self.design, settings)


Figure = str | Callable[[Run], float | None]
"""A figure of a run, by its name in RunResult or by what reads it."""


class NotMeasuredError(Exception):
    """A run has not the figure that a claim is decided by; the message is its name."""


class Evidence:
    """The runs of a claim's cases."""

    def __init__(self, runs: Mapping[str, Sequence[Run]]) -> None:
        """Take the runs of each case, none of which failed."""
        self._runs = runs

    @property
    def cases(self) -> list[str]:
        """Names of the cases."""
        return list(self._runs)

    def spread(self, case: str, figure: Figure) -> Spread:
        """A figure of a case over its repeats, by its name in RunResult or by what reads it.

        Raises:
            NotMeasuredError: a run has no such figure.
        """
        found = spread_of([_read(run, figure) for run in self._runs[case]])
        if found is None:
            raise NotMeasuredError(figure.__name__ if callable(figure) else figure)
        return found

    def __call__(self, case: str, figure: Figure) -> float:
        """The median of that."""
        return self.spread(case, figure).median

    def is_less(self, one: str, other: str, figure: Figure, factor: float = 1.0) -> bool | None:
        """Whether a figure of one case is less than a factor of the other's for every seed, or for none; None if mixed.

        Cases with the same work and seed have the same stream, and in virtual time nothing else to differ by, so they
        are compared seed by seed. On a live machine the time of day comes in: there their spreads must not overlap.
        """
        if any(run.cell.machine == "live" for case in (one, other) for run in self._runs[case]):
            return less(self.spread(one, figure), self.spread(other, figure), factor)
        found = {case: self.by_seed(case, figure) for case in (one, other)}
        seeds = found[one].keys() & found[other].keys()
        return agreed(found[one][seed] < factor * found[other][seed] for seed in seeds)

    def by_seed(self, case: str, figure: Figure) -> dict[int, float]:
        """A figure of each of a case's runs, by seed.

        Raises:
            NotMeasuredError: a run has no such figure.
        """
        self.spread(case, figure)
        return {run.cell.config.seed: _read(run, figure) or 0.0 for run in self._runs[case]}

    def config(self, case: str) -> RunConfig:
        """The settings of a case's first run."""
        return self._runs[case][0].cell.config

    def bar(self, case: str, spread: Spread, bound: Bound | None = None) -> Bar:
        """A bar of this case."""
        return Bar(case, self.config(case).design, spread, bound)

    def bars(self, label: str, kind: Kind, figure: Figure, asked: "Mapping[str, Asked | None]") -> Bars:
        """A figure of some cases, and what is asked of each; None is a case that the others are compared with.

        Raises:
            NotMeasuredError: a run has no such figure.
        """
        made = [
            self.bar(case, self.spread(case, figure), None if ask is None else ask(self, case, figure, kind))
            for case, ask in asked.items()
        ]
        return Bars(label, kind, tuple(made))


Asked = Callable[[Evidence, str, Figure, Kind], Bound]
"""What is asked of a case's figure: it answers, by the evidence, for a case."""


def at_most(limit: float) -> Asked:
    """It stays within a limit."""
    return lambda of, case, figure, kind: bars.at_most(of.spread(case, figure), limit, kind)


def at_least(limit: float) -> Asked:
    """It reaches a limit."""
    return lambda of, case, figure, kind: bars.at_least(of.spread(case, figure), limit, kind)


def less_than(other: str, factor: float = 1.0) -> Asked:
    """It is less than so many times another case's, as `Evidence.is_less` has it."""

    def ask(of: Evidence, case: str, figure: Figure, _: Kind) -> Bound:
        is_met = of.is_less(case, other, figure, factor)
        return Bound(f"less than {_times(factor)}{other}", factor * of(other, figure), True, is_met)

    return ask


def more_than(other: str, factor: float) -> Asked:
    """It is more than so many times another case's, likewise."""

    def ask(of: Evidence, case: str, figure: Figure, _: Kind) -> Bound:
        is_met = of.is_less(other, case, figure, 1 / factor)
        return Bound(f"more than {_times(factor)}{other}", factor * of(other, figure), False, is_met)

    return ask


def within(other: str, factor: float) -> Asked:
    """It is at most so many times another case's, in every pair of repeats."""

    def ask(of: Evidence, case: str, figure: Figure, _: Kind) -> Bound:
        one, beside = of.spread(case, figure), of.spread(other, figure)
        is_met = True if one.high <= factor * beside.low else False if one.low > factor * beside.high else None
        return Bound(f"at most {_times(factor)}{other}", factor * beside.median, True, is_met)

    return ask


def _times(factor: float) -> str:
    return "" if factor == 1 else f"{factor:.3g} times "


def _read(run: Run, figure: Figure) -> float | None:
    return figure(run) if callable(figure) else run.figures.get(figure)


def unreturned_share(run: Run) -> float | None:
    """What was not returned at the end, as a share of what the host held at most."""
    left, peak = run.figures.get("unreturned_bytes"), run.figures.get("peak_resident_bytes")
    return None if left is None or not peak else left / peak


def less(one: Spread, other: Spread, factor: float = 1.0) -> bool | None:
    """Whether one is less than a factor of the other, for certain; None where the spreads do not allow to say."""
    if one.high < other.low * factor:
        return True
    return False if one.low >= other.high * factor else None


def agreed(answers: Iterable[bool]) -> bool | None:
    """What all of them say; None if they differ, or there is none."""
    different = set(answers)
    return different.pop() if len(different) == 1 else None
