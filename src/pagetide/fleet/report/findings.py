"""What a fleet's figures say, a sentence each: which are said, and in which words, the figures decide."""

from collections.abc import Iterator

from pagetide.fleet.learning.settings import config_of
from pagetide.fleet.report.told import Told
from pagetide.fleet.runs.summary import MONTH_H, SettingSummary
from pagetide.units import format_size

_LITTLE = 0.05
"""A share below which something is hardly anything."""

_CLEARLY = 2.0
"""So many times another value is clearly more than it."""

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
    between = everything.mean_between_bytes
    yield (
        f"Of {format_size(nothing.mean_bytes)} that hosts hold on average where nothing returns, "
        f"{format_size(there)} ({there / nothing.mean_bytes:.0%}) are not in use. In use are "
        f"{format_size(everything.mean_bytes)}"
        + (f", {format_size(between[0])} to {format_size(between[1])} for VMs like these." if between else ".")
    )
    for one in _extremes(told):
        gains = nothing.mean_bytes - one.mean_bytes
        if gains > 0:
            yield f"{one.name}: {format_size(gains)} of these come back ({gains / there:.0%})."
        else:  # the first row is the least that a guest holds which returns nothing
            yield f"{one.name}: nothing of these comes back; {format_size(one.mean_bytes)} are held."


def _extremes(told: Told) -> list[SettingSummary]:
    """The settings that hold the least and the most."""
    if not told.learned:
        return []
    ordered = sorted(told.learned, key=lambda one: one.mean_bytes)
    return [ordered[0]] if len(ordered) == 1 else [ordered[0], ordered[-1]]


def _order(told: Told) -> Iterator[str]:
    """What is left behind in blocks too small to be reported, if that is much and there is a lower order."""
    used = told.found.settings[-1].mean_bytes
    for one, chosen in zip(told.learned, told.chosen, strict=True):
        if len(chosen.parts) > 1:
            continue
        config, beyond = config_of(chosen.settings[0], seed=1), one.mean_bytes - used
        left = max(chosen.parts[0].left)
        if config.design not in ("off", "balloon") and config.order > 0 and left > _LITTLE and beyond > _LITTLE * used:
            yield (
                f"{one.name}: {format_size(beyond)} more than is used stay with hosts. Blocks below its order "
                f"{config.order} are not reported, and such guests leave up to {left:.0%} of their highest use in "
                "those; a lower order, or a design that keeps blocks together, returns more."
            )


def _density(told: Told) -> Iterator[str]:
    nothing = told.found.settings[0]
    there = [one for one in told.learned if one.density is not None]
    if nothing.density is None or not there:
        yield (
            "Not under every setting is there a placement under which a host is on average short for "
            f"{told.found.risk_h:g} h a month or less: it takes larger hosts, or a policy that reserves more."
        )
        return
    best = max(there, key=lambda one: one.density.value if one.density else 0.0)
    assert best.density is not None
    ratio = best.density.value / nothing.density.value
    yield (
        f"Where a host is on average short for at most {told.found.risk_h:g} h a month, {best.density.value:.3g} VMs "
        f"fit on one under {best.name} ({best.densest}), and {nothing.density.value:.3g} where nothing returns "
        f"({nothing.densest}): {ratio:.2g} times as many.{_by_draw(told, best)}"
    )


def _by_draw(told: Told, best: SettingSummary) -> str:
    """How that is for VMs that are drawn anew; nothing is said without draws."""
    if best.denser_share is None or best.within_share is None:
        return ""
    return (
        f" It is more in {best.denser_share:.0%} of {told.question.draws} draws of such VMs, placed by the same two "
        f"plans, and {best.densest} stays within that risk in {best.within_share:.0%} of them."
    )


def _peaks(told: Told) -> Iterator[str]:
    used = told.found.settings[-1]
    if used.most_bytes < (1 - _LITTLE) * used.mosts_bytes:
        yield (
            f"Peaks are apart: each VM's own highest use adds up to {format_size(used.mosts_bytes)}, and all together "
            f"never use more than {format_size(used.most_bytes)} ({used.most_bytes / used.mosts_bytes:.0%})."
        )


def _pressure(told: Told) -> Iterator[str]:
    """The next denser plan under the setting that holds the least, if hosts are short for clearly longer with it."""
    for one in _extremes(told)[:1]:
        chosen = next((plan for plan in one.plans if plan.plan == one.densest), None)
        if chosen is None:
            continue
        denser = [plan for plan in one.plans if plan.vms_a_host.value > chosen.vms_a_host.value]
        plan = min(denser, key=lambda plan: plan.pressed_h.value, default=chosen)
        if plan.pressed_h.value > _CLEARLY * max(told.found.risk_h, chosen.pressed_h.value):
            yield (
                f"Beyond that risk it gets steep: {plan.plan} puts {plan.vms_a_host.value:.3g} VMs on a host under "
                f"{one.name}, which is then on average short for {plan.pressed_h.value:.3g} of {MONTH_H:g} h a month, "
                f"at the deepest by {format_size(plan.over_most_bytes)}."
            )


def _cost(told: Told) -> Iterator[str]:
    costs = {one.name: (one.reports_cpu_s or 0.0) + (one.refaults_cpu_s or 0.0) for one in told.learned}
    if costs:
        least, most = min(costs, key=lambda name: costs[name]), max(costs, key=lambda name: costs[name])
        yield (
            f"Reports and refaults take {costs[least]:.3g} s of CPU for a VM and a day under {least}, and "
            f"{costs[most]:.3g} s under {most} ({costs[most] / _DAY_S:.2%} of a processor)."
        )
