"""The model against the simulator, on days of VMs that were not learned from.

A VM's day is its own curve of use, as shares of its memory, on the simulated guest's (settings.py): its RAM is scaled
down. What is compared is what the host holds on average over the day, as a share of that RAM. Days on which the VM is
off, or not known throughout, are not drawn: the simulated guest has no such day.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pagetide.fleet.learning.chosen import Chosen
from pagetide.fleet.learning.fit import modelled
from pagetide.fleet.learning.observe import STEP_S, observe
from pagetide.fleet.learning.settings import RAM_BYTES
from pagetide.fleet.usage.canonical import Source, UsageError
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import Costs

MEAN_OFF_MAX = 0.03
"""How far the model may be off on average over the days of a setting, as a share of RAM."""

OFF_MAX = 0.06
"""How far it may be off on the worst day."""

USED_SHARE_MAX = 0.9
"""A day's curve is scaled by this, so that a guest has room for what its kernel and its per-CPU lists keep."""

_STEPS = 86400 // STEP_S
_TRIES_MAX = 50


class Day(NamedTuple):
    """A day of a VM.

    Attributes:
        vm: its name.
        day: which, from 0.
        shares: float64 [288], what it uses of its memory, at most USED_SHARE_MAX.
    """

    vm: str
    day: int
    shares: npt.NDArray[np.float64]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a day under a setting, as shares of RAM on average over the day.

    Attributes:
        vm: the VM's name.
        day: which day.
        setting: a name in SETTINGS, or a mixture.
        guest: a name in SCATTERS.
        used: what was used.
        simulated: what the simulated host held.
        modelled: what the model says.
    """

    vm: str
    day: int
    setting: str
    guest: str
    used: float
    simulated: float
    modelled: float

    @property
    def off(self) -> float:
        """How far the model is off; more than 0 if it says too much."""
        return self.modelled - self.simulated


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A setting and guest over all its days.

    Attributes:
        setting: a name in SETTINGS, or a mixture.
        guest: a name in SCATTERS.
        simulated: what hosts held on average, as a share of RAM.
        modelled: what the model says.
        mean_off: how far the model is off on average, whichever way.
        most_off: the same on the worst day.
    """

    setting: str
    guest: str
    simulated: float
    modelled: float
    mean_off: float
    most_off: float

    @property
    def is_good(self) -> bool:
        """Whether both are within their limits."""
        return self.mean_off <= MEAN_OFF_MAX and self.most_off <= OFF_MAX


def draw(source: Source, days: int, seed: int) -> list[Day]:
    """So many days of VMs, each of them drawn alone; a day may come twice.

    Raises:
        UsageError: the steps are not five minutes, or hardly a VM is on for a whole day.
    """
    grid = source.grid
    if grid.step_s != STEP_S or grid.steps < _STEPS:
        raise UsageError(
            f"{source.about} has {grid.steps} steps of {grid.step_s} s: a day that can be checked has {_STEPS} of "
            f"{STEP_S} s"
        )
    rng = np.random.default_rng(seed)
    found: list[Day] = []
    for _ in range(_TRIES_MAX * days):
        if len(found) == days:
            return found
        vm, day = int(rng.integers(len(source.vms))), int(rng.integers(grid.steps // _STEPS))
        usage, _ = source.read(vm, vm + 1)
        here = slice(day * _STEPS, (day + 1) * _STEPS)
        capacity, used = usage.capacity_bytes[0, here].astype(np.float64), usage.used_bytes[0, here]
        if usage.valid[0, here].all() and (capacity > 0).all():
            found.append(Day(source.vms[vm], day, USED_SHARE_MAX * used / capacity.max()))
    raise UsageError(f"{source.about} has too few days on which a VM is on and known throughout")


def check(
    days: Sequence[Day], chosen: Sequence[Chosen], costs: Costs, seed: int, tell: Callable[[], None]
) -> list[Checked]:
    """Simulate these days, and follow them with the model; the model has what the simulated guest really used.

    Args:
        days: the days.
        chosen: the settings with their responses; of a mixture a day has one part, which the seed draws.
        costs: what things cost.
        seed: drives every random choice.
        tell: is called after each day and setting.

    Raises:
        SimulationError: a guest did not get through.
        KeyboardInterrupt: Ctrl-C.
    """
    found = []
    for number, day in enumerate(days):
        for one in chosen:
            part = one.parts[one.mixture.drawn_part(seed, number)]
            seen = observe(part.setting, one.guest, list(map(float, day.shares)), costs, seed + number)
            found.append(
                Checked(
                    vm=day.vm,
                    day=day.day,
                    setting=one.name,
                    guest=one.guest,
                    used=float(seen.used.mean()) / RAM_BYTES,
                    simulated=float(seen.held_mean.mean()) / RAM_BYTES,
                    modelled=float(modelled(seen, part.response).mean()) / RAM_BYTES,
                )
            )
            tell()
    return found


def verdicts(checked: Sequence[Checked]) -> list[Verdict]:
    """One for each setting and guest, in their order."""
    found = []
    for setting, guest in dict.fromkeys((one.setting, one.guest) for one in checked):
        own = [one for one in checked if (one.setting, one.guest) == (setting, guest)]
        off = np.abs([one.off for one in own])
        simulated, model = (float(np.mean([getattr(one, name) for one in own])) for name in ("simulated", "modelled"))
        found.append(
            Verdict(
                setting=setting,
                guest=guest,
                simulated=simulated,
                modelled=model,
                mean_off=float(off.mean()),
                most_off=float(off.max()),
            )
        )
    return found


def read_verdicts(path: Path) -> tuple[str, list[Verdict]]:
    """Whose days were checked, and how that went, from what `pagetide fleet check --json` printed.

    Raises:
        ConfigError: the file cannot be read, or has nothing of the kind.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"the check {path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path} does not hold a check as `pagetide fleet check --json` prints it: {error}"
        ) from error
    return found.about, found.verdicts


class _File(msgspec.Struct, frozen=True):
    """What of that file is read."""

    about: str
    verdicts: list[Verdict]
