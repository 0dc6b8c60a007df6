"""Runs, sorted out: by the work that was to be done, by the configuration that did it, by repeat."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from pagetide.compare.results.records import Run
from pagetide.compare.results.wording import fault_words
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.settings.file import SETTINGS
from pagetide.machine.settings.fits import misfit
from pagetide.units import format_size

_WORK = frozenset({
    "workload", "ram_bytes", "bursts", "eat_share", "hold_s", "rest_s", "duration_s", "rate_per_s", "mix", "stream",
    "migratetypes", "faults", "vcpus", "pcp_max_bytes", "backing",
})  # fmt: skip
"""Settings that say what is to be done; all others but the seed say how free memory is returned."""

_SILENT = frozenset({"workload", "faults", "design", "seed"})

_OPTIONS = {setting.field: option for option, setting in SETTINGS.items()}

_WORDS = {
    "ram_bytes": "RAM", "hold_s": "hold", "rest_s": "rest", "duration_s": "duration", "rate_per_s": "rate",
    "delay_s": "delay", "cool_s": "cool", "in_flight_max_bytes": "in flight", "hints_max": "hints",
    "drop_share": "may drop", "keep_s": "keep",
    "verify_share": "verify", "wake_blocks": "wake at", "pcp_max_bytes": "per-CPU lists",
}  # fmt: skip


class Configuration(NamedTuple):
    """A way to return memory, on one condition.

    Attributes:
        design: its name.
        label: the design, and what is not as it is by default.
        settings: every setting that is not the work's, apart from the seed.
        runs: its runs, a seed each, failed ones left out.
        failed: those that failed.
    """

    design: str
    label: str
    settings: dict[str, Any]
    runs: list[Run]
    failed: list[Run]


class Condition(NamedTuple):
    """The same work on the same machine, and all that did it.

    Attributes:
        name: of the condition in a link: letters, digits and hyphens.
        machine: what ran it.
        workload: its name.
        faults: what went wrong on purpose, as `--fault` has it; empty for nothing.
        details: settings of the work that are not the workload's defaults.
        configurations: in the order of the designs.
    """

    name: str
    machine: str
    workload: str
    faults: tuple[str, ...]
    details: str
    configurations: list[Configuration]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.workload}, {fault_words(self.faults)}"

    @property
    def designs(self) -> set[str]:
        """Those of its configurations."""
        return {one.design for one in self.configurations}

    @property
    def one_a_design(self) -> list[Configuration]:
        """Each design as it is by default, or as near to that as it was run."""
        nearest = sorted(self.configurations, key=lambda one: len(one.label))
        first = {one.design: one for one in reversed(nearest)}
        return [one for one in self.configurations if one is first[one.design]]

    def off(self, seed: int) -> Run | None:
        """The control with this seed: nothing reported."""
        for configuration in self.configurations:
            if configuration.design == "off":
                for run in configuration.runs:
                    if run.cell.config.seed == seed:
                        return run
        return None

    @property
    def has_control(self) -> bool:
        """Whether `off` was run beside it: with the seed of the first run."""
        seeds = [run.cell.config.seed for one in self.configurations for run in one.runs]
        return bool(seeds) and self.off(seeds[0]) is not None


def conditions_of(runs: Iterable[Run]) -> list[Condition]:
    """All conditions, those with most designs first and otherwise in the order of their first runs."""
    works: dict[bytes, list[Run]] = {}
    for run in runs:
        settings = msgspec.structs.asdict(run.cell.config)
        work = [run.cell.machine, {name: settings[name] for name in sorted(_WORK)}]
        works.setdefault(msgspec.json.encode(work), []).append(run)
    made = [_condition(number, group) for number, group in enumerate(works.values(), 1)]
    return sorted(made, key=lambda condition: -len(condition.designs))


def _condition(number: int, runs: list[Run]) -> Condition:
    config = runs[0].cell.config
    ways: dict[bytes, list[Run]] = {}
    for run in runs:
        settings = msgspec.structs.asdict(run.cell.config)
        way = {name: settings[name] for name in sorted(settings) if name not in _WORK | {"seed"}}
        ways.setdefault(msgspec.json.encode(way), []).append(run)
    designs = tuple(DESIGNS)
    configurations = sorted(map(_configuration, ways.values()), key=lambda one: designs.index(one.design))
    return Condition(
        name=f"{config.workload}-{number}",
        machine=runs[0].cell.machine,
        workload=config.workload,
        faults=config.faults,
        details=_unusual(config, _WORK),
        configurations=configurations,
    )


def _configuration(runs: list[Run]) -> Configuration:
    config = runs[0].cell.config
    others = frozenset(msgspec.structs.asdict(config)) - _WORK
    unusual = _unusual(config, others)
    settings = msgspec.structs.asdict(config)
    return Configuration(
        design=config.design,
        label=f"{config.design}, {unusual}" if unusual else config.design,
        settings={name: settings[name] for name in sorted(others - {"seed"})},
        runs=sorted((run for run in runs if not run.failed), key=lambda run: run.cell.config.seed),
        failed=[run for run in runs if run.failed],
    )


def _unusual(config: RunConfig, names: frozenset[str]) -> str:
    """These settings, where they have an effect and are not the workload's defaults."""
    defaults = RunConfig(**workload_defaults(config.workload, config.design))
    said = []
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        if field.name not in names - _SILENT or misfit(_OPTIONS[field.name], config) is not None:
            continue
        if value != getattr(defaults, field.name):
            said.append(f"{_WORDS.get(field.name, field.name.replace('_', ' '))} {_worded(field.name, value)}")
    return ", ".join(said)


def _worded(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return format_size(value)
    return f"{value:.12g} s" if name.endswith("_s") and not name.endswith("per_s") else f"{value}"
