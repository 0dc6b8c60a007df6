"""Which configuration to use for which set-up, by the figures of a comparison.

The rule, the same for each of the thread's five set-ups (S13): a configuration is sound if it made no allocation fail
falsely, lost no hint and kept vCPUs waiting for less than a thousandth of the time, on every condition of the workload
on which it was run, the host's faults included. Of the sound ones the one is chosen that takes least CPU time, guest
and host, among those that let the host hold at most a twentieth more than the best of them. Where that one gains less
than a fiftieth over no reporting, the advice is not to report.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pagetide.lab.compare.conditions import Condition, Configuration, conditions_of
from pagetide.lab.compare.evidence import cpu_of, seconds, size
from pagetide.lab.compare.spread import spread_of
from pagetide.lab.compare.store import Run, Store
from pagetide.lab.compare.verdicts import Advice

SETUPS = {
    "burst": "an application that eats much memory a few times a day and frees it",
    "web": "a web server that is mostly idle",
    "database": "a database that fills memory with its cache",
    "churn": "heavy allocation and freeing all the time",
    "small": "a small guest that runs close to its limit",
}
"""The five set-ups of the thread, by workload."""

STALLED_SHARE_MAX = 1e-3
FOOTPRINT_SLACK = 0.05
GAIN_MIN = 0.02

_LINUX = {
    "off": "leave free page reporting off (QEMU: -device virtio-balloon,free-page-reporting=off, its default).",
    "scan": (
        "this is what mm/page_reporting.c does: -device virtio-balloon,free-page-reporting=on in QEMU, and the order "
        "in /sys/module/page_reporting/parameters/page_reporting_order; its delay is 2 s."
    ),
    "balloon": "set the balloon's target from the host (QMP: balloon), with deflate-on-oom=on.",
}
_NOT_IN_LINUX = "there is no such design in Linux; free page reporting (scan) is the nearest."


class _Candidate(NamedTuple):
    configuration: Configuration
    held_bytes: float
    cpu_s: float
    refaulted_bytes: float


def advice(store: Store) -> list[Advice]:
    """Advice for each set-up, by the rule at the head of this file."""
    return advice_of(store.runs())


def advice_of(runs: Iterable[Run]) -> list[Advice]:
    """The same of these runs."""
    conditions = conditions_of(runs)
    return [_advise(workload, [one for one in conditions if one.workload == workload]) for workload in SETUPS]


def _advise(workload: str, conditions: Sequence[Condition]) -> Advice:
    setup = SETUPS[workload]
    quiet = next((one for one in conditions if not one.faults and one.off(_a_seed(one)) is not None), None)
    if quiet is None:
        return Advice(
            setup=setup, choice=None, why=f"The workload {workload} was not run without a fault and beside off."
        )
    by_label = {one.configuration.label: one for one in filter(None, map(_candidate, quiet.configurations))}
    sound = [one for label, one in by_label.items() if _is_sound(label, conditions)]
    off = by_label.get("off")
    if off is None or not any(one.configuration.design != "off" for one in sound):
        return Advice(setup=setup, choice=None, why="No configuration was sound on every condition of this workload.")
    ranked = _ranked([one for one in sound if one.configuration.design != "off"])
    best = ranked[0]
    gain = 1 - best.held_bytes / off.held_bytes
    chosen = off if gain < GAIN_MIN else best
    runs = tuple(run.key for one in (off, best) for run in one.configuration.runs)
    told = (
        f"the host held {size(best.held_bytes)} on average instead of {size(off.held_bytes)} "
        f"({100 * gain:.2g} % less), for {seconds(best.cpu_s)} of CPU time instead of {seconds(off.cpu_s)}, and "
        f"{size(best.refaulted_bytes)} refaulted"
    )
    if chosen is off:
        why = f"With {best.configuration.label}, the best that is sound, {told}: too little to be worth it."
    else:
        why = f"With it {told}."
    return Advice(
        setup=setup,
        choice=chosen.configuration.label,
        why=why,
        costs=_runner_up(ranked) if chosen is best else "",
        command=chosen.configuration.runs[0].cell.replay,
        linux=_LINUX.get(chosen.configuration.design, _NOT_IN_LINUX),
        runs=runs,
    )


def _ranked(sound: Sequence[_Candidate]) -> list[_Candidate]:
    """The best first: least CPU time among those near the least footprint, then the others by footprint."""
    least_bytes = min(one.held_bytes for one in sound)
    limit_bytes = least_bytes * (1 + FOOTPRINT_SLACK)
    near = sorted((one for one in sound if one.held_bytes <= limit_bytes), key=lambda one: one.cpu_s)
    return near + sorted((one for one in sound if one.held_bytes > limit_bytes), key=lambda one: one.held_bytes)


def _runner_up(ranked: Sequence[_Candidate]) -> str:
    if len(ranked) < 2:
        return "Nothing else was sound."
    second = ranked[1]
    return (
        f"Next is {second.configuration.label}, with {size(second.held_bytes)}, {seconds(second.cpu_s)} and "
        f"{size(second.refaulted_bytes)}."
    )


def _is_sound(label: str, conditions: Sequence[Condition]) -> bool:
    """Whether a configuration did no harm on any of these conditions."""
    for condition in conditions:
        for one in condition.configurations:
            if one.label == label and (one.failed or not all(map(_did_no_harm, one.runs))):
                return False
    return True


def _did_no_harm(run: Run) -> bool:
    figures = run.figures
    waited_s, duration_s = figures.get("vcpu_wait_host_s") or 0.0, figures.get("duration_s") or 0.0
    harm = (figures.get("false_ooms") or 0) + (figures.get("dropped_hints") or 0) + (figures.get("stamp_errors") or 0)
    return harm == 0 and waited_s <= STALLED_SHARE_MAX * duration_s * run.cell.config.vcpus


def _candidate(configuration: Configuration) -> _Candidate | None:
    held = spread_of([run.figures.get("mean_resident_bytes") for run in configuration.runs])
    cpu = spread_of([cpu_of(run) for run in configuration.runs])
    refaulted = spread_of([run.figures.get("refaulted_bytes") for run in configuration.runs])
    if held is None or cpu is None:
        return None
    return _Candidate(configuration, held.median, cpu.median, 0.0 if refaulted is None else refaulted.median)


def _a_seed(condition: Condition) -> int:
    return next((run.cell.config.seed for one in condition.configurations for run in one.runs), 0)
