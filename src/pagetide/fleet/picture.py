"""A fleet's sums as text."""

import datetime as dt

from pagetide.fleet.totals import Totals
from pagetide.fleet.usage.canonical import Source
from pagetide.fleet.usage.oddities import sentences
from pagetide.units import format_size

_UNIX_S_MIN = 10**8


def picture(source: Source, found: Totals) -> str:
    """What was read, what was odd, and what each setting holds."""
    grid = source.grid
    span = f"{grid.days:,.4g} days in steps of {grid.step_s} s, {found.vm_days:,.0f} VM-days known"
    lines = [
        f"{source.about}: {found.vms:,} VMs over {span}",
        *(f"  odd: {line}" for line in sentences(found.oddities)),
        "",
        f"provisioned, of the VMs that are on: {format_size(found.provisioned_bytes)} on average",
        "",
        _row("what hosts hold for all VMs", "on average", "at the most", "each VM's most"),
    ]
    lines += [
        _row(total.name, *map(format_size, (total.mean_bytes, total.most_bytes, total.mosts_bytes)))
        for total in found.settings
    ]
    most = found.settings[0]
    return "\n".join(
        [*lines, "", f"The most is held, with nothing returned, at {_when(most.most_at_s)}.", *_bounds(found)]
    )


def _bounds(found: Totals) -> list[str]:
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


def _row(name: str, *cells: str) -> str:
    return f"{name:<32}" + "".join(f"{cell:>16}" for cell in cells)


def _when(at_s: int) -> str:
    """An instant: a date if it is Unix time, or how long after the beginning."""
    if at_s < _UNIX_S_MIN:
        return f"day {at_s // 86400}, {at_s % 86400 // 3600:02}:{at_s % 3600 // 60:02}"
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%d %H:%M} UTC"
