"""Settings from a TOML file and from the command line, under the same names, merged over the defaults."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.config_error import ConfigError
from pagetide.units import parse_size


class Setting(NamedTuple):
    """How a setting by its public name becomes a field of RunConfig."""

    field: str
    read: Callable[[Any], Any] | None = None


def _size(value: Any) -> int:
    return value if isinstance(value, int) else parse_size(str(value))


SETTINGS: dict[str, Setting] = {
    "workload": Setting("workload"),
    "design": Setting("design"),
    "ram": Setting("ram_bytes", _size),
    "bursts": Setting("bursts"),
    "eat-share": Setting("eat_share"),
    "hold": Setting("hold_s"),
    "rest": Setting("rest_s"),
    "duration": Setting("duration_s"),
    "rate": Setting("rate_per_s"),
    "mix": Setting("mix"),
    "stream": Setting("stream"),
    "migratetypes": Setting("migratetypes"),
    "fault": Setting("faults"),
    "order": Setting("order"),
    "delay": Setting("delay_s"),
    "capacity": Setting("capacity"),
    "pace": Setting("pace"),
    "cool": Setting("cool_s"),
    "wake": Setting("wake"),
    "wake-blocks": Setting("wake_blocks"),
    "oom": Setting("oom"),
    "in-flight": Setting("in_flight_max_bytes", _size),
    "hints": Setting("hints_max"),
    "drop-share": Setting("drop_share"),
    "keep": Setting("keep_s"),
    "vcpus": Setting("vcpus"),
    "pcp": Setting("pcp_max_bytes", _size),
    "backing": Setting("backing"),
    "split": Setting("split"),
    "verify": Setting("verify_share"),
    "device": Setting("device"),
    "seed": Setting("seed"),
}
"""Every setting, by the name that it has as an option and in a file."""


_WHOLE_MAX = 1 << 63
_SHOWN_MAX = 60


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, by public name.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has a name that is no setting.
    """
    try:
        found = tomllib.loads(path.read_bytes().decode())  # TOML is UTF-8, whatever the locale
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, and a number of thousands of digits
        raise ConfigError(f"the configuration file {path} is not TOML: {error}") from error
    for name in found:
        if name not in SETTINGS:
            raise ConfigError(f"{path} sets {name!r}, which is no setting; there are {', '.join(SETTINGS)}")
    return found


def make_config(*sources: Mapping[str, Any]) -> RunConfig:
    """The settings of one run: the workload's defaults, overridden by each source in turn.

    Args:
        sources: settings by public name; a value of None is not given.

    Raises:
        ConfigError: a value has the wrong type or is out of its range.
    """
    given: dict[str, Any] = {}
    for source in sources:
        for name, value in source.items():
            if value is None:
                continue
            given[SETTINGS[name].field] = _read(name, value)
    config = RunConfig(**workload_defaults(given.get("workload", "burst"), given.get("design")) | given)
    config.check()
    if config.device == "qemu":
        config = msgspec.structs.replace(config, verify_share=0.0)
    return config


def _read(name: str, value: Any) -> Any:
    """The value of a setting as its field's type."""
    setting = SETTINGS[name]
    kind = _given_kind(RunConfig.__annotations__[setting.field])
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices and value not in choices:
        raise ConfigError(f"{name} must be {' or '.join(choices)}, not {_shown(value)}")
    try:
        read = msgspec.convert(value if setting.read is None else setting.read(value), kind)
    except (msgspec.ValidationError, OverflowError) as error:
        raise ConfigError(f"{name} must be {_KIND_NAMES.get(kind, 'text')}, not {_shown(value)}") from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    if isinstance(read, int) and not -_WHOLE_MAX <= read < _WHOLE_MAX:
        raise ConfigError(f"{name} must be below 2^63, not {_shown(value)}")
    return read


def _shown(value: Any) -> str:
    """A value for a sentence, not longer than that."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def _given_kind(kind: Any) -> Any:
    """A field's type when it is given: without the None that stands for its default."""
    if NoneType not in get_args(kind):
        return kind
    given, _ = sorted(get_args(kind), key=lambda one: one is NoneType)
    return given


_KIND_NAMES = {int: "a whole number", float: "a number", str: "text", tuple[str, ...]: "a list of texts"}
