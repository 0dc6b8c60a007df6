"""`pagetide boot`: a real Linux guest, seen live and summed up as `run` does it."""

from collections.abc import Mapping
from typing import Any

from pagetide.lab.run_command import run
from pagetide.machine.boot_config import BootConfig
from pagetide.machine.config import ConfigError
from pagetide.machine.packages import find_uml
from pagetide.machine.uml import UmlMachine
from pagetide.units import parse_size

_FIELDS = {
    "ram": "ram_bytes",
    "fill": "fill_bytes",
    "bursts": "bursts",
    "hold": "hold_s",
    "order": "order",
    "verify": "verify_share",
}


def make_boot_config(given: Mapping[str, Any]) -> BootConfig:
    """The settings of one boot: defaults, overridden by what is given.

    Args:
        given: settings by the names of their options; sizes as text. A value of None is not given.

    Raises:
        ConfigError: a size cannot be read, or a value is out of its range.
    """
    fields = {}
    for name, value in given.items():
        if value is None:
            continue
        try:
            fields[_FIELDS[name]] = parse_size(value) if isinstance(value, str) else value
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from error
    config = BootConfig(**fields)
    config.check()
    return config


def boot_uml(config: BootConfig, json_path: str | None) -> int:
    """Boot User-Mode Linux once, show it, and say how it ended as an exit status.

    Args:
        config: the settings, checked.
        json_path: as for `run`.

    Raises:
        ConfigError: this machine cannot do it, or a package is missing; nothing was run.
    """
    parts = find_uml()
    return run(config.run_config(), json_path, make_machine=lambda _: UmlMachine(config, parts))
