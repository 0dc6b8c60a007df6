"""One simulated guest that follows a curve, step by step of the fleet's grid."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.learning.settings import RAM_BYTES, SCATTERS, config_of
from pagetide.machine.costs import Costs
from pagetide.machine.observer import Nobody
from pagetide.machine.simulated.machine import SimulatedMachine
from pagetide.workload.curve import curve
from pagetide.workload.mix import parse_mix

STEP_S = 300
"""A step of the curves: five minutes, as monitors commonly record."""

MOVE_S = 10.0
"""How long a change of use takes."""


class SimulationError(Exception):
    """A simulated guest did not get through; the message is one sentence."""


class Observed(NamedTuple):
    """What was seen, in bytes, a step each.

    Attributes:
        used: float64 [step], what the guest used at the step's end.
        held: float64 [step], what the host held for it at the step's end.
        held_mean: float64 [step], the same on average over the step.
    """

    used: npt.NDArray[np.float64]
    held: npt.NDArray[np.float64]
    held_mean: npt.NDArray[np.float64]


def observe(setting: str, guest: str, shares: Sequence[float], costs: Costs, seed: int) -> Observed:
    """Run a guest.

    Args:
        setting: a name in SETTINGS.
        guest: a name in SCATTERS.
        shares: what it uses in each step, of its RAM.
        costs: what things cost.
        seed: drives every random choice.

    Raises:
        SimulationError: it did not get to its end.
    """
    config = config_of(setting, seed)
    steps = len(shares)
    work = curve(
        at_s=[step * float(STEP_S) for step in range(steps)],
        used_bytes=[share * RAM_BYTES for share in shares],
        move_s=MOVE_S,
        scatter=SCATTERS[guest],
        end_s=steps * float(STEP_S),
        vcpus=config.vcpus,
        mix=parse_mix(config.mix),
        seed=seed,
    )
    result = SimulatedMachine(config, costs, work=work).run(Nobody())
    if result.outcome == "interrupted":
        raise KeyboardInterrupt
    if result.outcome != "complete":
        raise SimulationError(f"{setting}: {result.outcome}")
    at_s = np.array(result.samples.t_s)
    held = np.array(result.samples.host_resident_bytes, np.float64)
    used = np.array(result.samples.guest_used_bytes, np.float64)
    ends_s = STEP_S * np.arange(1, steps + 1)
    held_bytes_s = np.concatenate([[0.0], np.cumsum(np.diff(at_s) * (held[1:] + held[:-1]) / 2)])
    return Observed(
        used=used[np.searchsorted(at_s, ends_s, "right") - 1],
        held=held[np.searchsorted(at_s, ends_s, "right") - 1],
        held_mean=np.diff(np.interp([0, *ends_s], at_s, held_bytes_s)) / STEP_S,
    )
