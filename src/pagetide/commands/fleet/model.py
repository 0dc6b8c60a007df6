"""`pagetide fleet learn` and `fleet check`: the responses that the model of the guests has, and how good it is."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pagetide.commands.fleet.choices import SHOWN, Choice, opened, progress
from pagetide.commands.run import check_target
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.fleet.learning.check import MEAN_OFF_MAX, OFF_MAX, USED_SHARE_MAX, Checked, Verdict, check, draw, verdicts
from pagetide.fleet.learning.chosen import choose, parse_setting
from pagetide.fleet.learning.fit import is_on_edge
from pagetide.fleet.learning.observe import SimulationError
from pagetide.fleet.learning.responses import Learned, default_path, learn, read_responses, write_responses
from pagetide.fleet.learning.settings import RAM_BYTES, SCATTERS, SETTINGS
from pagetide.fleet.usage.canonical import UsageError
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import read_costs
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.units import format_size

_DAYS_MAX = 10_000


def fleet_learn(settings: Sequence[str], out: Path | None, costs: Path | None, seed: int) -> int:
    """Learn responses, and write them to a file; an exit status.

    Raises:
        ConfigError: there is no such setting, the seed is out of its range, some settings alone have no file of their
            own, or the file cannot be written.
    """
    _check_seed(seed)
    for name in settings:
        if parse_setting(name).keys() != {name}:
            raise ConfigError(
                f"of {name!r} nothing is learned: learn its parts by their names, and mix them with `pagetide fleet`"
            )
    if settings and out is None:
        raise ConfigError("with --settings the file has only those: name one of its own with --out")
    path = out or default_path()
    check_target(path, "the responses", makes_folders=True)
    prices, names = read_costs(costs), settings or tuple(SETTINGS)
    fall_back_to_ascii(sys.stderr)
    try:
        with progress(len(names) * len(SCATTERS), "responses") as tell:
            responses = learn(names, prices, seed, lambda: tell(1))
    except SimulationError as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED
    write_responses(responses, path)
    for one in responses.learned:
        print(_line(one))
    print(f"written to {path}", file=sys.stderr)
    return STATUS_OK


def fleet_check(
    choice: Choice,
    settings: Sequence[str],
    days: int,
    *,
    responses: Path | None,
    costs: Path | None,
    as_json: bool,
) -> int:
    """Check the model against the simulator; an exit status.

    Args:
        choice: whose days; its seed also drives which of them, and the simulated guests.
        settings: names in SETTINGS, or mixtures of them; none for SHOWN.
        days: how many.
        responses: a file of how guests respond; None for the usual place, or what is built in.
        costs: a file of what things cost; None likewise.
        as_json: print JSON.

    Raises:
        ConfigError: there is no such setting or response, or a number is out of its range.
    """
    seed = 1 if choice.seed is None else choice.seed
    choice.check()
    _check_seed(seed)
    for name in settings:
        parse_setting(name)
    if not 1 <= days <= _DAYS_MAX:
        raise ConfigError(f"--vm-days must be from 1 to {_DAYS_MAX:,}, not {days}")
    chosen = choose(read_responses(responses), settings or SHOWN)
    prices = read_costs(costs)
    fall_back_to_ascii(sys.stdout)
    try:
        with opened(choice) as source:
            about, drawn = source.about, draw(source, days, seed)
        with progress(len(drawn) * len(chosen), "days") as tell:
            checked = check(drawn, chosen, prices, seed, lambda: tell(1))
    except (UsageError, SimulationError) as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED
    found = verdicts(checked)
    if as_json:
        answer = {"about": about, "ram_bytes": RAM_BYTES, "verdicts": found, "days": checked}
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        print(_table(about, found, checked))
    return STATUS_OK if all(one.is_good for one in found) else STATUS_FAILED


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 1 << 62:
        raise ConfigError(f"the seed must be from 0 to 2^62 - 1, not {seed}")


def _line(one: Learned) -> str:
    """A response for people."""
    returns = "returns nothing" if one.return_s is None else f"returns within {one.return_s:.3g} s"
    most = max(one.left)
    edge = "; its fading is at the edge of what was tried" if is_on_edge(one.fades) else ""
    return (
        f"{one.setting:<14}{one.guest:<10}{returns:<24}leaves at most {most:6.1%} behind, "
        f"off by {one.off_share:.1%} of RAM on what it was learned from{edge}"
    )


def _table(about: str, found: Sequence[Verdict], checked: Sequence[Checked]) -> str:
    days = len({(one.vm, one.day) for one in checked})
    wide = 1 + max(22, *(len(one.setting) for one in found))
    lines = [
        f"{days} days of VMs, of {about},",
        f"each simulated with {format_size(RAM_BYTES)} of RAM, of which its curve takes at most {USED_SHARE_MAX:.0%}.",
        "What the host holds on average over the day, as a share of RAM:",
        "",
        _row(wide, "setting", "guest frees", "simulated", "model", "off, mean", "off, most", ""),
    ]
    lines += [
        _row(
            wide, one.setting, one.guest, f"{one.simulated:.2%}", f"{one.modelled:.2%}", f"{one.mean_off:.2%}",
            f"{one.most_off:.2%}", "" if one.is_good else "too far",
        )
        for one in found
    ]  # fmt: skip
    worst = max(checked, key=lambda one: abs(one.off))
    return "\n".join(
        [
            *lines,
            "",
            f"It may be off by {MEAN_OFF_MAX:.0%} of RAM on average, and by {OFF_MAX:.0%} on the worst day.",
            f"The worst is VM {worst.vm}, day {worst.day}, {worst.setting}, {worst.guest}: {worst.off:+.2%}.",
        ]
    )


def _row(wide: int, setting: str, guest: str, *cells: str) -> str:
    return f"{setting:<{wide}}{guest:<12}" + "".join(f"{cell:>11}" for cell in cells).rstrip()
