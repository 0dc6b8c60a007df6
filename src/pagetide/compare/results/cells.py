"""Cells of a grid: one run each, by a key that is made of all that the run depends on but its costs."""

import hashlib
import shlex
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.settings.file import SETTINGS
from pagetide.machine.settings.fits import misfit

MachineName = Literal["live", "simulated"]

KEY_DIGITS = 16
"""Hexadecimal digits of a key."""


class Cell(msgspec.Struct, frozen=True):
    """One run of a grid.

    Attributes:
        config: its settings, the seed of this repeat included.
        machine: what runs it.
        repeat: which of the runs it is that differ by their seeds alone, from 0.
    """

    config: RunConfig
    machine: MachineName
    repeat: int = 0

    @property
    def key(self) -> str:
        """16 hexadecimal digits of a SHA-256 over the machine and every setting.

        It stays the same whatever the order of the fields, and whether a whole number of seconds was given as 1 or 1.0.
        """
        text = self.machine.encode() + b"\0" + _canonical(self.config)
        return hashlib.sha256(text).hexdigest()[:KEY_DIGITS]

    @property
    def replay(self) -> str:
        """The `pagetide run` command line that runs it again, apart from what things cost."""
        machine = [] if self.machine == "live" else ["--machine", self.machine]
        return shlex.join(["pagetide", "run", *machine, *_options(self.config, self.machine)])


def seedless(config: RunConfig) -> bytes:
    """The settings without the seed, the same for all repeats of a configuration."""
    return _canonical(msgspec.structs.replace(config, seed=0))


def _canonical(config: RunConfig) -> bytes:
    """Every setting, in one way of writing them."""
    as_read = msgspec.json.decode(msgspec.json.encode(config), type=RunConfig)
    return msgspec.json.encode(as_read, order="sorted")


def repeats_of(config: RunConfig, machine: MachineName, repeats: int) -> list[Cell]:
    """The runs of these settings with so many seeds in a row, from `config.seed` on.

    The seeds do not depend on the design, so that all designs are compared on the same streams.
    """
    return [
        Cell(msgspec.structs.replace(config, seed=config.seed + repeat), machine, repeat) for repeat in range(repeats)
    ]


def without_duplicates(cells: Iterable[Cell]) -> list[Cell]:
    """The cells in their order, each key once."""
    return list({cell.key: cell for cell in reversed(list(cells))}.values())[::-1]


def condition_of(config: RunConfig) -> dict[str, Any]:
    """The settings that make a condition, by the names of their columns in the database."""
    return {
        "design": config.design,
        "workload": config.workload,
        "faults": " ".join(config.faults),
        "oom": config.oom,
        "reporting_order": config.order,
        "delay_s": config.delay_s,
        "cool_s": config.cool_s,
        "wake": config.wake,
        "capacity": config.capacity,
        "pace": config.pace,
        "ram_bytes": config.ram_bytes,
        "backing": config.backing,
        "vcpus": config.vcpus,
        "seed": config.seed,
    }


def _options(config: RunConfig, machine: MachineName) -> Iterator[str]:
    """The options that make these settings from the defaults of their workload."""
    defaults = RunConfig(**workload_defaults(config.workload, config.design))
    for name, setting in SETTINGS.items():
        if misfit(name, config, machine) is not None:
            continue
        value = getattr(config, setting.field)
        if name == "workload":
            if value != RunConfig().workload:
                yield from (f"--{name}", value)
        elif isinstance(value, bool):
            if value != getattr(defaults, setting.field):
                yield f"--{name}" if value else f"--no-{name}"
        elif value != getattr(defaults, setting.field):
            for one in value if isinstance(value, tuple) else (value,):
                yield from (f"--{name}", str(one))
