"""The policies by name, and the plans that are made of them."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.fleet.hosts.host import Known
from pagetide.fleet.hosts.placing import peak_of_sum, quantile, reservation


class PlanError(ValueError):
    """There is no such plan; the message is one sentence."""


Wanted = Callable[[Known, float], npt.NDArray[np.float64]]
"""A policy: what each VM is taken to need, float64 [vm, span of time], given its level. First fit does the rest."""

POLICIES: Mapping[str, Wanted] = {
    "reservation": reservation.wanted,
    "quantile": quantile.wanted,
    "peak-of-sum": peak_of_sum.wanted,
}
"""By name. One file each; only `quantile` has a level."""

_LEVELLED = "quantile"


class Plan(NamedTuple):
    """A policy and its level: 0.95 for the value that is passed in a twentieth of the time."""

    policy: str
    level: float = 1.0

    @property
    def name(self) -> str:
        """As it is written: `quantile:0.95`."""
        return f"{self.policy}:{self.level:g}" if self.policy == _LEVELLED else self.policy

    def wanted(self, known: Known) -> npt.NDArray[np.float64]:
        """What each VM is taken to need; float64 [vm, span of time]."""
        return POLICIES[self.policy](known, self.level)


PLANS = (
    Plan("reservation"),
    *(Plan("quantile", level) for level in (1.0, 0.99, 0.95, 0.9, 0.75, 0.5)),
    Plan("peak-of-sum"),
)
"""Those that are looked at where none is named."""


def parse_plan(text: str) -> Plan:
    """A plan by its name.

    Raises:
        PlanError: there is none.
    """
    policy, colon, level = text.partition(":")
    if policy not in POLICIES:
        raise PlanError(f"there is no placement {text!r}; choose from reservation, quantile:0.95 and peak-of-sum")
    if policy != _LEVELLED:
        if colon:
            raise PlanError(f"{policy} has no level, so {text!r} is none")
        return Plan(policy)
    if not re.fullmatch(r"[01](\.[0-9]+)?", level) or not 0 < float(level) <= 1:
        raise PlanError(f"a quantile has a level above 0 and up to 1, such as quantile:0.95, and not {text!r}")
    return Plan(policy, float(level))
