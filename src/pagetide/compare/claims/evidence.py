"""What a claim is tested by: the runs of a few cases, and comparisons of them that allow for their spread."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pagetide.compare.claims.verdicts import Verdict
from pagetide.compare.grid.axes import NO_FAULT, condition_config, grid_defaults
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import Spread, spread_of
from pagetide.machine.config import RunConfig
from pagetide.units import GIB, MIB


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

    def spread(self, case: str, figure: str | Callable[[Run], float | None]) -> Spread:
        """A figure of a case over its repeats, by its name in RunResult or by what reads it.

        Raises:
            NotMeasuredError: a run has no such figure.
        """
        read = figure if callable(figure) else (lambda run: run.figures.get(figure))
        found = spread_of([read(run) for run in self._runs[case]])
        if found is None:
            raise NotMeasuredError(figure.__name__ if callable(figure) else figure)
        return found

    def __call__(self, case: str, figure: str | Callable[[Run], float | None]) -> float:
        """The median of that."""
        return self.spread(case, figure).median

    def is_less(
        self, one: str, other: str, figure: str | Callable[[Run], float | None], factor: float = 1.0
    ) -> bool | None:
        """Whether a figure of one case is less than a factor of the other's for every seed, or for none; None if mixed.

        Cases with the same work and seed have the same stream, and in virtual time nothing else to differ by, so they
        are compared seed by seed. On a live machine the time of day comes in: there their spreads must not overlap.
        """
        if any(run.cell.machine == "live" for case in (one, other) for run in self._runs[case]):
            return less(self.spread(one, figure), self.spread(other, figure), factor)
        found = {case: self.by_seed(case, figure) for case in (one, other)}
        seeds = found[one].keys() & found[other].keys()
        return agreed(found[one][seed] < factor * found[other][seed] for seed in seeds)

    def by_seed(self, case: str, figure: str | Callable[[Run], float | None]) -> dict[int, float]:
        """A figure of each of a case's runs, by seed.

        Raises:
            NotMeasuredError: a run has no such figure.
        """
        self.spread(case, figure)
        read = figure if callable(figure) else (lambda run: run.figures.get(figure))
        return {run.cell.config.seed: read(run) or 0.0 for run in self._runs[case]}

    def config(self, case: str) -> RunConfig:
        """The settings of a case's first run."""
        return self._runs[case][0].cell.config


def unreturned_share(run: Run) -> float | None:
    """What was not returned at the end, as a share of what the host held at most."""
    left, peak = run.figures.get("unreturned_bytes"), run.figures.get("peak_resident_bytes")
    return None if left is None or not peak else left / peak


def less(one: Spread, other: Spread, factor: float = 1.0) -> bool | None:
    """Whether one is less than a factor of the other, for certain; None where the spreads do not allow to say."""
    if one.high < other.low * factor:
        return True
    return False if one.low >= other.high * factor else None


def at_most(one: Spread, limit: float) -> bool | None:
    """Whether it stays within a limit in every repeat, or in none; None if in some."""
    return True if one.high <= limit else False if one.low > limit else None


def at_least(one: Spread, limit: float) -> bool | None:
    """Whether it reaches a limit in every repeat, or in none; None if in some."""
    return True if one.low >= limit else False if one.high < limit else None


def within(one: Spread, other: Spread, factor: float) -> bool | None:
    """Whether it is at most so many times the other in every pair of repeats, or in none; None if in some."""
    return True if one.high <= factor * other.low else False if one.low > factor * other.high else None


def agreed(answers: Iterable[bool]) -> bool | None:
    """What all of them say; None if they differ, or there is none."""
    different = set(answers)
    return different.pop() if len(different) == 1 else None


def verdict_of(*tests: bool | None) -> Verdict:
    """A claim holds if all of its tests do, and does not if one does not."""
    if False in tests:
        return "not held"
    return "undecided" if None in tests else "held"


def size(nr_bytes: float) -> str:
    """Bytes for a sentence, in MiB or GiB."""
    return f"{nr_bytes / GIB:.2f} GiB" if nr_bytes >= GIB else f"{nr_bytes / MIB:.4g} MiB"


def seconds(time_s: float) -> str:
    """Seconds for a sentence."""
    if time_s == 0 or time_s >= 1:
        return f"{time_s:.3g} s"
    return f"{time_s * 1e3:.3g} ms" if time_s >= 1e-3 else f"{time_s * 1e6:.3g} µs"


def listed(names: Sequence[str]) -> str:
    """Names for a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
