"""What a fleet's figures say, a sentence each: which are said, and in which words, the figures decide."""

from collections.abc import Iterator

from pagetide.fleet.report.told import Told
from pagetide.fleet.runs.summary import MONTH_H, SettingSummary
from pagetide.units import format_size

_LITTLE = 0.05
"""A share below which something is hardly anything."""

_DAY_S = 86400


def findings(told: Told) -> list[str]:
    """The sentences, the weightiest first."""
    if told.found.settings[0].most_bytes == 0:
        return ["No VM used anything at any time: nothing was held, and nothing can be won."]
    return [*_gain(told), *_order(told), *_density(told), *_peaks(told), *_pressure(told), *_cost(told)]


def _gain(told: Told) -> Iterator[str]:
    nothing, everything = told.found.settings[0], told.found.settings[-1]
    there = nothing.mean_bytes - everything.mean_bytes
    if there < _LITTLE * nothing.mean_bytes:
        yield (
            f"There is hardly anything to win: where nothing returns hosts hold {format_size(nothing.mean_bytes)} on "
            f"average, and {format_size(everything.mean_bytes)} of that is in use."
        )
        return
    low, high = everything.mean_between_bytes
    yield (
        f"Of {format_size(nothing.mean_bytes)} that hosts hold on average where nothing returns, "
        f"{format_size(there)} ({there / nothing.mean_bytes:.0%}) are not in use. In use are "
        f"{format_size(everything.mean_bytes)}, {format_size(low)} to {format_size(high)} for VMs like these."
    )
    for one in _extremes(told):
        gains = nothing.mean_bytes - one.mean_bytes
        yield f"{one.name}: {format_size(gains)} of these come back ({gains / there:.0%})."


def _extremes(told: Told) -> list[SettingSummary]:
    """The settings that hold the least and the most."""
    if not told.learned:
        return []
    ordered = sorted(told.learned, key=lambda one: one.mean_bytes)
    return [ordered[0]] if len(ordered) == 1 else [ordered[0], ordered[-1]]


def _order(told: Told) -> Iterator[str]:
    """What is left behind in blocks too small to be reported, if that is much."""
    used = told.found.settings[-1].mean_bytes
    for one in told.learned:
        beyond = one.mean_bytes - used
        if beyond > _LITTLE * used and one.name.endswith("anywhere"):
            yield (
                f"{one.name}: {format_size(beyond)} more than is used stay with hosts, mostly in blocks too small for "
                "its order; a lower order, or a design that keeps blocks together, would return them."
            )


def _density(told: Told) -> Iterator[str]:
    nothing = told.found.settings[0]
    there = [one for one in told.learned if one.density is not None]
    if nothing.density is None or not there:
        yield (
            f"Not under every setting is there a placement that leaves hosts short for {told.found.risk_h:g} h "
            "a month or less: it takes larger hosts, or a policy that reserves more."
        )
        return
    best = max(there, key=lambda one: one.density.value if one.density else 0.0)
    assert best.density is not None
    ratio = best.density.value / nothing.density.value
    apart = best.density.low > nothing.density.high
    yield (
        f"With hosts short for at most {told.found.risk_h:g} h a month, {best.density.value:.3g} VMs fit on one under "
        f"{best.name} ({best.densest}), and {nothing.density.value:.3g} where nothing returns ({nothing.densest}): "
        f"{ratio:.2g} times as many"
        + (", whichever VMs are drawn." if apart else "; for VMs drawn anew the two are not always apart.")
    )


def _peaks(told: Told) -> Iterator[str]:
    used = told.found.settings[-1]
    if used.most_bytes < (1 - _LITTLE) * used.mosts_bytes:
        yield (
            f"Peaks are apart: each VM's own highest use adds up to {format_size(used.mosts_bytes)}, and all together "
            f"never use more than {format_size(used.most_bytes)} ({used.most_bytes / used.mosts_bytes:.0%})."
        )


def _pressure(told: Told) -> Iterator[str]:
    """The plan that is the most tempting beyond the risk, under the setting that holds the least."""
    for one in _extremes(told)[:1]:
        beyond = [plan for plan in one.plans if plan.pressed_h.value > told.found.risk_h]
        if beyond:
            plan = min(beyond, key=lambda plan: plan.pressed_h.value)
            yield (
                f"Beyond that risk it gets steep: {plan.plan} puts {plan.vms_a_host.value:.3g} VMs on a host under "
                f"{one.name}, which is then short for {plan.pressed_h.value:.3g} of {MONTH_H:g} h a month, at its "
                f"deepest by {format_size(plan.over_most_bytes)}."
            )


def _cost(told: Told) -> Iterator[str]:
    costs = {one.name: (one.reports_cpu_s or 0.0) + (one.refaults_cpu_s or 0.0) for one in told.learned}
    if costs:
        least, most = min(costs, key=lambda name: costs[name]), max(costs, key=lambda name: costs[name])
        yield (
            f"Reports and refaults take {costs[least]:.3g} s of CPU for a VM and a day under {least}, and "
            f"{costs[most]:.3g} s under {most} ({costs[most] / _DAY_S:.2%} of a processor)."
        )
