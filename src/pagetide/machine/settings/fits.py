"""Which setting does something for which workload, design and machine: one table, and what is said of the others.

A setting that has no effect is refused where a person gave it for one run, and dropped where it was given for a grid of
runs, of which some take it. What a value must be to fit is another matter (guest/reporting/fits.py, RunConfig.check).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import RunConfig, Workload
from pagetide.machine.config_error import ConfigError
from pagetide.machine.faults import Kind
from pagetide.memory.available import total_bytes
from pagetide.units import format_size

Aspect = Literal["machine", "stream", "workload", "design", "oom", "wake", "device", "backing"]
"""What decides whether a setting has an effect."""

_Only = Mapping[Aspect, tuple[str, ...]]

_GENERATED = "generated"
_WORKLOADS = get_args(Workload)
_REPORTING = tuple(name for name in DESIGNS if name != "off")
_WITH_REPORTS = tuple(name for name in _REPORTING if name not in ("shared", "balloon"))
_NOTIFIED = ("notify", "notify-array", "hybrid")
_WOKEN = tuple(name for name in _WITH_REPORTS if name != "sync")


def _of_workloads(*names: str) -> _Only:
    return {"stream": (_GENERATED,), "workload": names}


FITS: dict[str, _Only] = {
    "bursts": _of_workloads("burst", "day"),
    "hold": _of_workloads("burst", "day"),
    "rest": _of_workloads("burst"),
    "duration": _of_workloads(*(name for name in _WORKLOADS if name != "burst")),
    "rate": _of_workloads("web", "churn", "small", "day"),
    "eat-share": _of_workloads(*_WORKLOADS),
    "mix": _of_workloads(*_WORKLOADS),
    "seed": _of_workloads(*_WORKLOADS),
    "migratetypes": {"stream": ("file",)},
    "order": {"design": tuple(name for name in _REPORTING if name != "balloon")},
    "delay": {"design": _REPORTING},
    "capacity": {"design": tuple(name for name in _REPORTING if name != "balloon")},
    "pace": {"design": _REPORTING},
    "cool": {"design": tuple(name for name in _REPORTING if name != "pool")},
    "wake": {"design": _REPORTING},
    "wake-blocks": {"design": _WOKEN, "wake": ("threshold",)},
    "oom": {"design": _REPORTING},
    "in-flight": {"design": tuple(name for name in _REPORTING if name != "balloon"), "oom": ("cap", "swap")},
    "hints": {"design": ("notify-array", "hybrid")},
    "drop-share": {"design": ("hybrid",)},
    "keep": {"design": ("pool",)},
    "split": {"design": ("pool",), "backing": ("hugetmpfs",)},
    "verify": {"design": _REPORTING, "device": ("pagetide",)},
    "costs": {"machine": ("simulated",)},
}
"""By the public name of a setting, what it needs; one that is not here always has an effect."""

FAULTS_FIT: dict[Kind, _Only] = {
    "ring": {"design": ("off", *_WITH_REPORTS)},
    "ring-full": {"design": ("off", *_WITH_REPORTS)},
}
"""The same of faults by kind; `off`, the control of every condition, is run with any, though nothing comes of it."""


class Misfit(NamedTuple):
    """What a setting needs, and what there is instead.

    Attributes:
        aspect: what decides.
        found: how that is.
        needed: how it might be.
    """

    aspect: Aspect
    found: str
    needed: tuple[str, ...]

    def sentence(self, what: str) -> str:
        """Why this has no effect, and where it would have one."""
        if self.aspect == "stream" and self.found == _GENERATED:
            return f"{what} has no effect without --stream: all that a workload allocates is movable"
        if self.aspect == "stream":
            return f"{what} has no effect with --stream: what the guest does is in the file"
        named = {"workload": "the workload ", "design": "the design "}.get(self.aspect, f"--{self.aspect} ")
        return f"{what} has no effect with {named}{self.found}: it is for {self._where()}"

    def _where(self) -> str:
        others = [name for name in DESIGNS if name not in self.needed]
        if self.aspect == "design" and len(others) < len(self.needed):
            return f"all designs but {_listed(others)}"
        return _listed(self.needed)


def misfit(name: str, config: RunConfig, machine: str = "") -> Misfit | None:
    """Why a setting has no effect on a run; None if it has one.

    Args:
        name: its public name.
        config: all settings of the run.
        machine: live or simulated; empty if that does not matter.
    """
    return _misfit(FITS.get(name, {}), config, machine)


def refuse_misfits(config: RunConfig, options: Iterable[str], in_file: Iterable[str] = (), machine: str = "") -> None:
    """Refuse what a person gave for a run that takes no notice of it.

    Args:
        config: all settings of the run.
        options: public names of the settings that were given as options.
        in_file: of those from a configuration file.
        machine: live or simulated.

    Raises:
        ConfigError: a setting or a fault has no effect; the sentence names it and what it is for.
    """
    given = {
        **{name: f"{name} in the configuration file" for name in in_file},
        **{name: f"--{name}" for name in options},
    }
    for name, called in given.items():
        found = misfit(name, config, machine)
        if found is not None:
            raise ConfigError(found.sentence(called))
    refuse_faults(config)


def refuse_faults(config: RunConfig) -> None:
    """Raise ConfigError for a fault that has no effect on this run."""
    for fault in config.parsed_faults:
        found = _misfit(FAULTS_FIT.get(fault.kind, {}), config, "")
        if found is not None:
            raise ConfigError(found.sentence(f"the fault {fault.kind}"))


def without_misfits(settings: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Those of some settings, by public name, that have an effect on a run with all of these."""
    return {name: value for name, value in settings.items() if misfit(name, config) is None}


def _misfit(only: _Only, config: RunConfig, machine: str) -> Misfit | None:
    for aspect, needed in only.items():
        found = _found(aspect, config, machine)
        if found and found not in needed:
            return Misfit(aspect, found, needed)
    return None


def _found(aspect: Aspect, config: RunConfig, machine: str) -> str:
    """How this aspect of a run is; empty if that is not known."""
    if aspect == "machine":
        return machine
    if aspect == "stream":
        return _GENERATED if config.stream is None else "file"
    if aspect == "wake":
        return config.wake or ("threshold" if config.design in _NOTIFIED else "merge")
    return str(getattr(config, aspect))


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def check_against_machine(config: RunConfig) -> None:
    """Find out before a run on real memory what this machine cannot do.

    Raises:
        ConfigError: the guest is larger than the machine.
    """
    if config.ram_bytes > total_bytes():
        raise ConfigError(
            f"a guest of {format_size(config.ram_bytes)} is larger than this machine's {format_size(total_bytes())}"
        )
