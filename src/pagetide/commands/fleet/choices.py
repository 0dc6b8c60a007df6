"""What the commands of `pagetide fleet` share: which fleet, which settings, and progress."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from rich.console import Console

from pagetide.fleet.usage.canonical import Source
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.fleet.usage.source import recorded
from pagetide.fleet.usage.store import TIME_UNITS
from pagetide.fleet.usage.table import MEMORY_UNITS, Columns
from pagetide.machine.config_error import ConfigError
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
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"the seed must be from 0 to 2^63 - 1, not {self.seed}")
        if self.columns and (self.usage is None or self.usage.is_dir()):
            raise ConfigError("columns and units are named for a file: --usage FILE")
        for name, known in (("memory_unit", MEMORY_UNITS), ("time_unit", TIME_UNITS)):
            if self.columns.get(name, next(iter(known))) not in known:
                raise ConfigError(f"there is no unit {self.columns[name]!r}; choose from {', '.join(known)}")


SHOWN = ("linux-9", "linux-0", "pool-0")
"""The settings that are looked at where none is named: Linux as it comes, as low as it goes, and ours."""


@contextlib.contextmanager
def opened(choice: Choice) -> Iterator[Source]:
    """The usage that was asked for."""
    if choice.usage is None:
        yield MadeUp(choice.vms or 1000, choice.days or 7, 1 if choice.seed is None else choice.seed)
        return
    with recorded(choice.usage, msgspec.convert(choice.columns, Columns)) as source:
        yield source


@contextlib.contextmanager
def progress(count: int, what: str) -> Iterator[Callable[[int], None]]:
    """Shows how much of so much is done; yields what is to be told how much more."""
    console = Console(stderr=True, highlight=False)
    live = console.is_interactive and sys.stderr.isatty()
    with GridProgress(console, count, live=live, what=what) as shown:

        def tell(more: int) -> None:
            shown.ended(cells=more)
            shown.show()

        yield tell
