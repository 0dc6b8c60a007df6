"""Which configuration to use for which set-up, by the figures of a comparison.

The rule, the same for each of the thread's five set-ups (S13):

1. A configuration is sound if on every condition of the workload on which it was run, the host's faults included, it
   made no allocation fail falsely, lost no hint, kept vCPUs waiting for less than a thousandth of their time, and had
   returned, some time after a host that stood still went on, as much as without that.
2. Of the sound ones those are near the best that let the host hold at most a twentieth more than the least of them.
3. Of those the ones with least CPU time, guest and host together, a fiftieth more or less; of those the one with the
   least footprint.
4. If that one gains less than a fiftieth over no reporting, or none is sound, the advice is not to report.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pagetide.compare.claims.today import is_settable, settings_of, what_is_missing
from pagetide.compare.claims.verdicts import Advice, Setting
from pagetide.compare.claims.words import seconds, size
from pagetide.compare.grid.setups import GAIN_MIN, SETUPS
from pagetide.compare.results.conditions import Condition, Configuration, conditions_of
from pagetide.compare.results.measures import cpu_s
from pagetide.compare.results.records import Run
from pagetide.compare.results.spread import REPEATS_MIN, spread_of
from pagetide.compare.results.store import Store
from pagetide.machine.config import RunConfig
from pagetide.machine.faults import of_kind

STALLED_SHARE_MAX = 1e-3
FOOTPRINT_SLACK = 0.05
CPU_SLACK = 0.02
LEFT_RAM_SHARE_MAX = 0.01
"""The rule's numbers, in its order: time that vCPUs wait, footprint, CPU time, and RAM that is left after a stop."""

_LINUX = {
    "off": "leave free page reporting off (QEMU: -device virtio-balloon,free-page-reporting=off, its default).",
    "balloon": "set the balloon's target from the host (QMP: balloon), with deflate-on-oom=on.",
}
_LINUX_SCAN = (
    "this is what mm/page_reporting.c does since Linux 5.7: -device virtio-balloon,free-page-reporting=on in QEMU"
)
_LINUX_ORDER = (
    ", and in the guest {order} written to /sys/module/page_reporting/parameters/page_reporting_order once its balloon "
    "driver is loaded (Linux 5.14 and newer; what is free by then is reported after the next free of such a block); a "
    "kernel newer than 6.1 also keeps page_reporting.page_reporting_order={order} from its command line, which "
    "on 6.1 and older the driver sets back"
)
_LINUX_FIXED = "; its delay of 2 s and its 32 blocks a report are fixed in kernels of before 2026"
_NOT_IN_LINUX = "there is no such configuration in Linux; free page reporting (scan) is the nearest"


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
    quiet = next((one for one in conditions if not one.faults and one.has_control), None)
    if quiet is None:
        return Advice(setup=setup, choice=None, why="That was not run without a fault and beside off.")
    by_label = {one.configuration.label: one for one in filter(None, map(_candidate, quiet.configurations))}
    off = next((one for one in by_label.values() if one.configuration.design == "off"), None)
    if off is None:
        return Advice(setup=setup, choice=None, why=f"No run of {workload} without reporting got to its end.")
    ranked = _ranked([one for label, one in by_label.items() if one is not off and _is_sound(label, quiet, conditions)])
    if not ranked:
        chosen = off
        why = (
            f"None of the {len(by_label) - 1} other configurations was sound on all {len(conditions)} conditions: each "
            "lost hints, failed falsely, stalled vCPUs or left memory behind on at least one."
        )
    else:
        gain = _gain(ranked[0], off)
        chosen = off if gain < GAIN_MIN else ranked[0]
        why = _why(ranked[0], off, gain, chosen)
    few = min(len(one.configuration.runs) for one in (off, *ranked[:1]))
    if few < REPEATS_MIN:
        why += f" That is of {few} run{'s' * (few > 1)} each: it takes {REPEATS_MIN} to tell it from chance."
    return Advice(
        setup=setup,
        choice=chosen.configuration.label,
        why=why,
        costs=_costs(off, chosen, ranked) + _untested(chosen, conditions) if chosen is not off else "",
        command=chosen.configuration.runs[0].cell.replay,
        linux=_in_linux(chosen.configuration, by_label.get("scan")),
        **_today(off, chosen, ranked)._asdict(),
        runs=tuple(run.key for one in (off, *ranked[:1]) for run in one.configuration.runs),
    )


class _Today(NamedTuple):
    today: tuple[Setting, ...]
    today_gain: str
    missing: str


def _today(off: _Candidate, chosen: _Candidate, ranked: Sequence[_Candidate]) -> _Today:
    """What can be set as things are: the best that is sound and gains enough, or nothing."""
    worth = (one for one in ranked if is_settable(one.configuration) and _gain(one, off) >= GAIN_MIN)
    best = next(worth, off) if chosen is not off else off
    missing = ""
    if not is_settable(chosen.configuration):
        missing = f"{chosen.configuration.label}: {what_is_missing(chosen.configuration)}; {_expected(chosen, off)}."
    gain = "Nothing that Linux has gains enough." if best is off else f"Expected: {_expected(best, off)}."
    return _Today(settings_of(best.configuration), gain, missing)


def _expected(one: _Candidate, off: _Candidate) -> str:
    return (
        f"with {one.configuration.label} the host holds {100 * _gain(one, off):.2g} % less than without reporting "
        f"({size(one.held_bytes)} on average), for {seconds(one.cpu_s)} of CPU time instead of {seconds(off.cpu_s)}"
    )


def _gain(best: _Candidate, off: _Candidate) -> float:
    """How much less the host held than without reporting, as a share: the median over the seeds that both have."""
    without = {run.cell.config.seed: run.figures.get("mean_resident_bytes") for run in off.configuration.runs}
    held = {run.cell.config.seed: run.figures.get("mean_resident_bytes") for run in best.configuration.runs}
    gains = [1 - (held[seed] or 0.0) / bytes_off for seed, bytes_off in without.items() if bytes_off and seed in held]
    return statistics.median(gains) if gains else 1 - best.held_bytes / off.held_bytes


def _why(best: _Candidate, off: _Candidate, gain: float, chosen: _Candidate) -> str:
    told = (
        f"the host held {size(best.held_bytes)} on average instead of {size(off.held_bytes)} ({100 * gain:.2g} % less)"
    )
    if chosen is off:
        return f"With {best.configuration.label}, the best that is sound, {told}: too little to be worth it."
    return f"With it {told}, and on no condition did it fail falsely, lose a hint or stall a vCPU."


def _costs(off: _Candidate, best: _Candidate, ranked: Sequence[_Candidate]) -> str:
    told = (
        f"It takes {seconds(best.cpu_s)} of CPU time, guest and host, instead of {seconds(off.cpu_s)}, and "
        f"{size(best.refaulted_bytes)} refaulted."
    )
    if len(ranked) < 2:
        return f"{told} Nothing else was sound."
    second = ranked[1]
    return (
        f"{told} Next is {second.configuration.label}, with {size(second.held_bytes)} held, {seconds(second.cpu_s)} "
        f"and {size(second.refaulted_bytes)} refaulted."
    )


def _untested(chosen: _Candidate, conditions: Sequence[Condition]) -> str:
    """What to add for a configuration that was not run with the faults that others were run with."""
    label = chosen.configuration.label
    faulty = [one for one in conditions if one.faults and one.has_control]
    if all(_runs(label, one) for one in faulty):
        return ""
    return " It was not run with a host that stops or is slow, as the others were."


def _in_linux(configuration: Configuration, scan: _Candidate | None) -> str:
    """What to set in a Linux guest (mm/page_reporting.c of Linux 6.1), or what comes nearest there."""
    settings = configuration.settings
    if configuration.design != "scan" or settings["cool_s"] or settings["oom"] not in ("none", "wait"):
        nearest = "" if scan is None else f"; with it the host held {size(scan.held_bytes)}, for {seconds(scan.cpu_s)}"
        return _LINUX.get(configuration.design, _NOT_IN_LINUX + nearest + ".")
    order = settings["order"]
    return _LINUX_SCAN + (_LINUX_ORDER.format(order=order) if order != RunConfig().order else "") + _LINUX_FIXED + "."


def _ranked(sound: Sequence[_Candidate]) -> list[_Candidate]:
    """The best first, then what is near the least footprint by CPU time, then the others by footprint."""
    if not sound:
        return []
    limit_bytes = min(one.held_bytes for one in sound) * (1 + FOOTPRINT_SLACK)
    near = [one for one in sound if one.held_bytes <= limit_bytes]
    limit_s = min(one.cpu_s for one in near) * (1 + CPU_SLACK)
    cheap = sorted((one for one in near if one.cpu_s <= limit_s), key=lambda one: one.held_bytes)
    dearer = sorted((one for one in near if one.cpu_s > limit_s), key=lambda one: one.cpu_s)
    others = sorted((one for one in sound if one.held_bytes > limit_bytes), key=lambda one: one.held_bytes)
    return cheap + dearer + others


def _is_sound(label: str, quiet: Condition, conditions: Sequence[Condition]) -> bool:
    """Whether a configuration did no harm on any of these conditions, and returned all after those that end."""
    left_bytes = {run.cell.config.seed: run.figures.get("unreturned_bytes") for run in _runs(label, quiet)}
    for condition in conditions:
        if any(one.label == label and one.failed for one in condition.configurations):
            return False
        for run in _runs(label, condition):
            if not _did_no_harm(run) or not _recovered(run, left_bytes.get(run.cell.config.seed)):
                return False
    return True


def _runs(label: str, condition: Condition) -> list[Run]:
    return [run for one in condition.configurations if one.label == label for run in one.runs]


def _recovered(run: Run, quiet_bytes: float | None) -> bool:
    """Whether a fault that ended left no more with the host than there would have been."""
    left = run.figures.get("unreturned_bytes")
    if not of_kind(run.cell.config.parsed_faults, "stop") or left is None or quiet_bytes is None:
        return True
    return left <= quiet_bytes + LEFT_RAM_SHARE_MAX * run.cell.config.ram_bytes


def _did_no_harm(run: Run) -> bool:
    figures = run.figures
    waited_s, duration_s = figures.get("vcpu_wait_host_s") or 0.0, figures.get("duration_s") or 0.0
    harm = (figures.get("false_ooms") or 0) + (figures.get("dropped_hints") or 0) + (figures.get("stamp_errors") or 0)
    return harm == 0 and waited_s <= STALLED_SHARE_MAX * duration_s * run.cell.config.vcpus


def _candidate(configuration: Configuration) -> _Candidate | None:
    held = spread_of([run.figures.get("mean_resident_bytes") for run in configuration.runs])
    cpu = spread_of([cpu_s(run) for run in configuration.runs])
    refaulted = spread_of([run.figures.get("refaulted_bytes") for run in configuration.runs])
    if held is None or cpu is None:
        return None
    return _Candidate(configuration, held.median, cpu.median, 0.0 if refaulted is None else refaulted.median)
