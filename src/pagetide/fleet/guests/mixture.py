"""Several settings in one fleet: each VM has one of them, since often only a part of a fleet can be changed."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pagetide.fleet.guests.response import Response
from pagetide.fleet.usage.canonical import Usage

_STREAM = 1 << 32
"""What sets these random numbers apart from the draws of the same seed."""


class Mixture(NamedTuple):
    """Which share of the VMs answers how.

    Attributes:
        name: of the whole.
        parts: the responses.
        shares: the share of VMs that has each; they add up to 1.
    """

    name: str
    parts: tuple[Response, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, response: Response) -> Self:
        """One that all VMs have."""
        return cls(response.name, (response,), (1.0,))

    def part_of(self, vms: int, seed: int, number: int) -> npt.NDArray[np.int64]:
        """Which part each of so many VMs has, int64 [vm], by the seed and the number of their cluster.

        As many have the first part as its share says, to one VM, and so with those up to each other part. Of two
        mixtures of the same first part, the VMs that have it in the one with less of it have it in the other.
        """
        ranks = np.random.default_rng([seed, number, _STREAM]).permutation(vms)
        return self._at((ranks + 0.5) / vms)

    def drawn_part(self, seed: int, number: int) -> int:
        """Which part a VM has that is drawn alone, by the seed and its number."""
        return int(self._at(np.random.default_rng([seed, number, _STREAM]).random(1))[0])

    def _at(self, places: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The parts at places from 0 to 1, on which each part has its share."""
        return np.minimum(np.searchsorted(np.cumsum(self.shares), places, "right"), len(self.parts) - 1)


def these(usage: Usage, vms: npt.NDArray[np.int64]) -> Usage:
    """The usage of some VMs."""
    return Usage(
        usage.grid,
        tuple(usage.vms[vm] for vm in vms),
        usage.capacity_bytes[vms],
        usage.used_bytes[vms],
        usage.valid[vms],
    )
