"""`pagetide fleet`: a fleet's usage to what its hosts hold."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from rich.console import Console

from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.fleet.guests.response import ALL_RETURNS, NOTHING_RETURNS
from pagetide.fleet.picture import picture
from pagetide.fleet.totals import totals
from pagetide.fleet.usage.canonical import Source, UsageError
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.fleet.usage.oddities import RULES
from pagetide.fleet.usage.source import recorded
from pagetide.fleet.usage.store import TIME_UNITS
from pagetide.fleet.usage.table import MEMORY_UNITS, Columns
from pagetide.machine.config_error import ConfigError
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.terminal.progress import GridProgress

_VMS_MAX = 1_000_000
_DAYS_MAX = 3650


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which fleet; None is the default.

    Attributes:
        usage: a folder or a file; None for a made-up fleet.
        columns: what a file's columns are called, where not as by default.
        vms: how many VMs are made up.
        days: for how long.
        seed: drives every random choice.
    """

    usage: Path | None = None
    columns: Mapping[str, str | bool] = {}
    vms: int | None = None
    days: int | None = None
    seed: int | None = None

    def check(self) -> None:
        """Raise ConfigError for what is out of its range or does not go together."""
        made_up = {"--vms": (self.vms, _VMS_MAX), "--days": (self.days, _DAYS_MAX)}
        for name, (value, most) in made_up.items():
            if value is not None and self.usage is not None:
                raise ConfigError(f"{name} makes a fleet up: it does not go with --usage")
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"{name} must be from 1 to {most:,}, not {value}")
        if self.seed is not None and self.usage is not None:
            raise ConfigError("--seed makes a fleet up: it does not go with --usage")
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"the seed must be from 0 to 2^63 - 1, not {self.seed}")
        if self.columns and (self.usage is None or self.usage.is_dir()):
            raise ConfigError("columns and units are named for a file: --usage FILE")
        for name, known in (("memory_unit", MEMORY_UNITS), ("time_unit", TIME_UNITS)):
            if self.columns.get(name, next(iter(known))) not in known:
                raise ConfigError(f"there is no unit {self.columns[name]!r}; choose from {', '.join(known)}")


def fleet(choice: Choice, *, as_json: bool = False) -> int:
    """Say what the hosts of a fleet hold; an exit status.

    Raises:
        ConfigError: the arguments do not go together.
    """
    choice.check()
    fall_back_to_ascii(sys.stdout)
    try:
        with opened(choice) as source, _progress(len(source.vms)) as tell:
            found = totals(source, (NOTHING_RETURNS, ALL_RETURNS), tell)
    except UsageError as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED
    if as_json:
        odd = {
            name: {"what": RULES[name].what, "rule": RULES[name].rule, **count._asdict()}
            for name, count in found.oddities.counts.items()
        }
        answer = {"about": source.about, "grid": source.grid._asdict(), **found._asdict(), "oddities": odd}
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        print(picture(source, found))
    return STATUS_OK


@contextlib.contextmanager
def opened(choice: Choice) -> Iterator[Source]:
    """The usage that was asked for."""
    if choice.usage is None:
        yield MadeUp(choice.vms or 1000, choice.days or 7, 1 if choice.seed is None else choice.seed)
        return
    with recorded(choice.usage, msgspec.convert(choice.columns, Columns)) as source:
        yield source


@contextlib.contextmanager
def _progress(vms: int) -> Iterator[Callable[[int], None]]:
    """Shows how many of so many VMs are done."""
    console = Console(stderr=True, highlight=False)
    live = console.is_interactive and sys.stderr.isatty()
    with GridProgress(console, vms, live=live, what="VMs") as progress:

        def tell(more: int) -> None:
            progress.ended(cells=more)
            progress.show()

        yield tell
