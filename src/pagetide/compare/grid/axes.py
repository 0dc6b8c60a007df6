"""From options to cells: every combination of designs, workloads, faults and answers to OOM, some times over.

A fault of the grid is one that matters in the workload: `stop` stops the host's process while much is freed, `slow`
makes it slower than the guest frees, for the whole run. Their times are those of the workload's clock.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec.structs import replace

from pagetide.compare.results.cells import Cell, MachineName, repeats_of, without_duplicates
from pagetide.compare.results.records import LeftOut
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import RunConfig, Workload
from pagetide.machine.config_error import ConfigError
from pagetide.machine.faults import SECONDS_MAX, FaultError, parse_faults
from pagetide.machine.settings.file import make_config
from pagetide.machine.settings.fits import misfit, refuse_faults, without_misfits

NO_FAULT = "none"
FAULTS = (NO_FAULT, "stop", "slow")
"""Faults of the grid by name; any other is written as `pagetide run --fault` has it."""

STOP_SHARE = 0.2
"""How long `stop` lasts, of what the workload's clock shows at the end."""

SLOW_FACTOR = 50
"""How many times slower `slow` makes the host: about as slow as a burst is fast to free."""

REPEATS_MAX = 1000

_BEFORE_S = 0.1  # the host stops a little before the free
_BURST_REST_S = 9.0  # with a hold of 1 s, three bursts take 30 s, as the other workloads do

QUICK: dict[str, Any] = {"workload": "burst", "ram": "1GiB", "bursts": 1, "hints": 16, "rest": 7.5}
"""Settings of the mail's case: one burst, and the host stopped while its memory is freed."""

QUICK_FAULT = "stop@0.9:5"
"""And its fault: the free begins at 1 s, and after the stop there are some 2.5 s in which to recover."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare; None is the default.

    Attributes:
        designs: names of designs. By default all.
        workloads: names of workloads. By default all.
        faults: one condition each: a name in FAULTS, or faults as `pagetide run --fault` has them, joined by `+`.
        oom: what is done against false OOMs. By default `wait`.
        machine: what runs it.
        repeat: how many runs of each that differ by the seed alone. By default 3, for `quick` 1.
        settings: further settings of every run, by public name.
        quick: only the mail's case.
    """

    designs: tuple[str, ...] | None = None
    workloads: tuple[str, ...] | None = None
    faults: tuple[str, ...] | None = None
    oom: tuple[str, ...] | None = None
    machine: MachineName = "simulated"
    repeat: int | None = None
    settings: dict[str, Any] = {}
    quick: bool = False

    @property
    def repeats(self) -> int:
        """`repeat`, or its default."""
        return self.repeat if self.repeat is not None else 1 if self.quick else 3

    @property
    def is_narrowed(self) -> bool:
        """Whether it is only a part of the default grid, or another one; seeds and repeats do not count."""
        other = self.settings.keys() - {"seed"}
        return self.quick or bool(other) or any((self.designs, self.workloads, self.faults, self.oom))

    @property
    def is_live_quick(self) -> bool:
        """Whether it is the whole of the mail's case on the live machine."""
        return self.machine == "live" and self.quick and not replace(self, quick=False).is_narrowed


class Grid(NamedTuple):
    """Cells, and what was left out because it does not fit."""

    cells: list[Cell]
    left_out: list[LeftOut]


def make_grid(choice: Choice) -> Grid:
    """The cells that a choice asks for: condition by condition, and in each design by design.

    Raises:
        ConfigError: a name that there is not, a setting out of its range, or nothing that fits.
    """
    _check(choice)
    designs = choice.designs or tuple(DESIGNS)
    workloads = choice.workloads or (("burst",) if choice.quick else get_args(Workload))
    faults = choice.faults or ((QUICK_FAULT,) if choice.quick else FAULTS)
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for workload, fault in itertools.product(workloads, faults):
        for oom, design in itertools.product(choice.oom or ("wait",), designs):
            try:
                config = _fitting(choice, condition_config(workload, fault, oom, design, _settings(choice, workload)))
            except ConfigError as error:
                left_out.append(LeftOut(f"{design} on {workload}, fault {fault}, oom {oom}", str(error)))
            else:
                cells += repeats_of(config, choice.machine, choice.repeats)
    if not cells:
        raise ConfigError(left_out[0].why)
    _check_effects(choice, cells)
    return Grid(without_duplicates(cells), left_out)


def condition_config(workload: str, fault: str, oom: str, design: str, settings: Mapping[str, Any]) -> RunConfig:
    """What a design runs with on a condition of the grid.

    Args:
        workload: its name.
        fault: a name in FAULTS, or faults as `pagetide run --fault` has them, joined by `+`.
        oom: what is done against false OOMs.
        design: its name.
        settings: further settings by public name; `grid_defaults` are not added.

    Raises:
        ConfigError: they do not fit together, or the fault has no effect. A setting without one keeps its default.
    """
    given = {**settings, "workload": workload, "oom": oom, "design": design}
    given["fault"] = _fault_texts(fault, workload, given)
    config = make_config(without_misfits(given, make_config(given)))
    refuse_faults(config)
    return config


def grid_defaults(workload: str) -> dict[str, Any]:
    """What the grid sets on a workload, by public name, beside the workload's own defaults."""
    return {"rest": _BURST_REST_S} if workload == "burst" else {}


def _fitting(choice: Choice, config: RunConfig) -> RunConfig:
    """The same settings; ConfigError if the choice's machine and repeats do not fit them."""
    check_machine(config, choice.machine)
    if config.seed + choice.repeats > 1 << 63:
        raise ConfigError(f"the seeds of {choice.repeats} repeats must stay below 2^63")
    return config


def _check(choice: Choice) -> None:
    """Names and numbers; whether a combination fits is found out for each."""
    oom = get_args(RunConfig.__annotations__["oom"])
    for given, known, what in (
        (choice.designs, tuple(DESIGNS), "design"),
        (choice.workloads, get_args(Workload), "workload"),
        (choice.oom, oom, "answer to OOM"),
    ):
        for name in given or ():
            if name not in known:
                raise ConfigError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    for fault in choice.faults or ():
        if fault not in FAULTS:
            try:
                parse_faults(fault.split("+"))
            except FaultError as error:
                raise ConfigError(f"{error}; or {', '.join(FAULTS)}") from error
    if not 1 <= choice.repeats <= REPEATS_MAX:
        raise ConfigError(f"there must be from 1 to {REPEATS_MAX} repeats, not {choice.repeats}")


def _check_effects(choice: Choice, cells: Sequence[Cell]) -> None:
    """Refuse a setting that was given and that none of the designs and workloads takes notice of."""
    given = [*choice.settings, *(["oom"] if choice.oom else [])]
    configs = {cell.config.workload + "\0" + cell.config.design: cell.config for cell in cells}.values()
    for name in given:
        found = [misfit(name, config, choice.machine) for config in configs]
        first = found[0]
        if first is not None and None not in found:
            raise ConfigError(first.sentence(f"--{name}"))


def _settings(choice: Choice, workload: str) -> dict[str, Any]:
    """Settings of every run on a workload: a grid's own defaults, and over them what was given."""
    defaults = QUICK if choice.quick else grid_defaults(workload)
    return {**defaults, **choice.settings}


def _fault_texts(fault: str, workload: str, settings: Mapping[str, Any]) -> list[str]:
    """The faults of a condition, as RunConfig has them."""
    if fault == NO_FAULT:
        return []
    if fault not in FAULTS:
        return fault.split("+")
    config = make_config({name: value for name, value in settings.items() if name in _CLOCK})
    if workload == "burst":
        end_s = config.bursts * (config.hold_s + (config.rest_s or 0.0))
        stop_s = config.hold_s - _BEFORE_S
    else:
        # At half of the time the web server's memory shrinks and the database evicts; before its third quarter is over
        # the day's third burst has been freed; the others free all the time.
        end_s = config.duration_s
        stop_s = config.duration_s / 2 - _BEFORE_S
    if fault == "stop":
        return [f"stop@{_written(max(stop_s, 0.0))}:{_written(STOP_SHARE * end_s)}"]
    return [f"slow@0:{_written(min(2 * end_s, SECONDS_MAX))}:{SLOW_FACTOR}"]


def _written(time_s: float) -> str:
    """Seconds, to the microsecond and without trailing zeros: `12345.678`, `9.9`, `30`."""
    return f"{time_s:.6f}".rstrip("0").rstrip(".")


_CLOCK = ("workload", "bursts", "hold", "rest", "duration")
"""Settings that a workload's clock depends on."""


def check_machine(config: RunConfig, machine: MachineName) -> None:
    """Raise ConfigError for what this machine does not have."""
    if machine == "live":
        from pagetide.machine.settings.fits import check_against_machine

        check_against_machine(config)
    else:
        from pagetide.machine.simulated.machine import check_simulated

        check_simulated(config)


def grouped(left_out: list[LeftOut]) -> Iterator[str]:
    """What was left out as sentences for people, one for each reason."""
    for why, group in itertools.groupby(sorted(left_out, key=lambda one: one.why), lambda one: one.why):
        first, *others = (one.what for one in group)
        more = f" and {len(others)} more" if others else ""
        yield f"left out: {first}{more}: {why}"
