"""What came of a fleet as text."""

import datetime as dt

from pagetide.fleet.runs.summary import LOW_HIGH, Interval, SettingSummary, Summary
from pagetide.fleet.usage.canonical import Source
from pagetide.fleet.usage.oddities import Oddities, sentences
from pagetide.units import format_size

_UNIX_S_MIN = 10**8

_UNDRAWN = ("No VMs were drawn anew (--draws), so that nothing is said of others like these.",)

_DRAWN = (
    f"In brackets: percentiles {LOW_HIGH[0]} and {LOW_HIGH[1]} of that plan for fleets drawn from these VMs;",
    "and in which share of these draws it is within the risk.",
)


def picture(source: Source, oddities: Oddities, found: Summary) -> str:
    """What was read, what was odd, what each setting holds, and how many VMs fit on a host."""
    grid = source.grid
    span = f"{grid.days:,.4g} days in steps of {grid.step_s} s, {found.vm_days:,.0f} VM-days known"
    wide = 1 + max(33, *(len(one.name) for one in found.settings))
    lines = [
        f"{source.about}: {found.vms:,} VMs over {span}",
        *(f"  odd: {line}" for line in sentences(oddities)),
        "",
        f"provisioned, of the VMs that are on: {format_size(found.provisioned_bytes)} on average",
        "",
        _row(wide, "what hosts hold for all VMs", "on average", "at the most", "each VM's most", "CPU s a VM-day"),
        *(_held(wide, one) for one in found.settings),
        "",
        _row(wide, "the densest plan within the risk", "VMs a host", "short, h/month", "hosts", "draws within", "by"),
        *(_densest(wide, one) for one in found.settings),
    ]
    most = found.settings[0]
    is_drawn = most.mean_between_bytes is not None
    return "\n".join(
        [
            *lines,
            "",
            f"The most is held, with nothing returned, at {when(most.most_at_s)}.",
            *_bounds(found),
            "VMs are placed by what the first half shows; in the other a host may on average be short for",
            f"{found.risk_h:g} h of a month's 720.",
            *(_DRAWN if is_drawn else _UNDRAWN),
        ]
    )


def _held(wide: int, one: SettingSummary) -> str:
    cpu = "" if one.reports_cpu_s is None else f"{one.reports_cpu_s + (one.refaults_cpu_s or 0):.3g}"
    return _row(wide, one.name, *map(format_size, (one.mean_bytes, one.most_bytes, one.mosts_bytes)), cpu)


def _densest(wide: int, one: SettingSummary) -> str:
    plan = next((plan for plan in one.plans if plan.plan == one.densest), None)
    if plan is None or one.density is None:
        return _row(wide, one.name, "none")
    within = "" if one.within_share is None else f"{one.within_share:.0%}"
    hours = f"{plan.pressed_h.value:.2f}"
    return _row(wide, one.name, _between(one.density), hours, f"{plan.hosts:,}", within, plan.plan)


def _between(interval: Interval) -> str:
    if interval.between is None:
        return f"{interval.value:.3g}"
    low, high = interval.between
    return f"{interval.value:.3g} ({low:.3g}-{high:.3g})"


def _bounds(found: Summary) -> list[str]:
    """What lies between returning nothing and returning all at once."""
    nothing, everything = found.settings[0], found.settings[-1]
    gain_bytes = nothing.mean_bytes - everything.mean_bytes
    gain = f"{format_size(gain_bytes)} ({_percent(gain_bytes, nothing.mean_bytes)} of the former)"
    return [
        "The first and the last row are bounds that need no model of the guest: one that returns nothing has held at",
        "least the most that it used since it was last off, and no host holds less than what is used. Between them are",
        f"on average {gain}, and {format_size(nothing.most_bytes - everything.most_bytes)} at the most.",
        "The others follow responses learned from simulated guests (`pagetide fleet check` says how well), each for",
        "both kinds between which guests lie: who frees what came last, and who frees anywhere in what it holds.",
        'If "used" is the hypervisor\'s estimate of active memory, guests hold more than that, and return less.',
    ]


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def _row(wide: int, name: str, *cells: str) -> str:
    return (f"{name:<{wide}}" + "".join(f"{cell:>17}" for cell in cells)).rstrip()


def when(at_s: int) -> str:
    """An instant: a date if it is Unix time, or how long after the beginning."""
    if at_s < _UNIX_S_MIN:
        return f"day {at_s // 86400}, {at_s % 86400 // 3600:02}:{at_s % 3600 // 60:02}"
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%d %H:%M} UTC"
