"""A made-up fleet, for who wants to see the command before he has data; nothing of it was measured anywhere.

Each VM is of a kind, drawn by its share, and differs from others of its kind in size, level, hours and noise:

- web: half of its memory stays, the rest breathes with the day, less at the weekend;
- batch: little, but for jobs at night that take most of its memory for some hours;
- office: on and busy from morning to evening on five days, off at night;
- database: grows to its cache's size in the first hours, and stays there;
- idle: hardly anything.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from pagetide.fleet.usage.canonical import Grid, Usage
from pagetide.fleet.usage.oddities import Oddities
from pagetide.units import GIB

STEP_S = 300
DAY_S = 86400

_Shares = npt.NDArray[np.float64]

_SIZES_GIB = (1, 2, 4, 8, 16, 32)
_SIZE_SHARES = (0.1, 0.25, 0.3, 0.2, 0.1, 0.05)
_NOISE = 0.01


def _web(rng: np.random.Generator, day: _Shares) -> _Shares:
    low, swing, peak_at = rng.uniform(0.1, 0.35), rng.uniform(0.1, 0.4), rng.uniform(0.45, 0.75)
    weekend = np.where(day // 1 % 7 >= 5, rng.uniform(0.3, 1.0), 1.0)
    wave: _Shares = 0.5 + 0.5 * np.cos(2 * np.pi * (day - peak_at))
    return low + swing * weekend * wave


def _batch(rng: np.random.Generator, day: _Shares) -> _Shares:
    low, high = rng.uniform(0.03, 0.1), rng.uniform(0.5, 0.9)
    begin, length = rng.uniform(0.0, 0.2), rng.uniform(0.04, 0.2)
    runs = rng.random(int(day[-1]) + 1) < rng.uniform(0.4, 1.0)
    hour = day % 1
    return np.where((hour >= begin) & (hour < begin + length) & runs[day.astype(np.int64)], high, low)


def _office(rng: np.random.Generator, day: _Shares) -> _Shares:
    busy, begin, end = rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.4), rng.uniform(0.7, 0.85)
    hour = day % 1
    at_work = (day // 1 % 7 < 5) & (hour >= begin) & (hour < end)
    return np.where(at_work, busy * (0.5 + 0.5 * np.sin(np.pi * np.clip((hour - begin) / (end - begin), 0, 1))), 0.0)


def _database(rng: np.random.Generator, day: _Shares) -> _Shares:
    level, warm_days = rng.uniform(0.5, 0.85), rng.uniform(0.05, 0.5)
    return level * (1 - np.exp(-day / warm_days)) + 0.05


def _idle(rng: np.random.Generator, day: _Shares) -> _Shares:
    return np.full(len(day), rng.uniform(0.02, 0.08))


KINDS: Mapping[str, tuple[float, Callable[[np.random.Generator, _Shares], _Shares]]] = {
    "web": (0.3, _web),
    "batch": (0.2, _batch),
    "office": (0.15, _office),
    "database": (0.15, _database),
    "idle": (0.2, _idle),
}
"""The share of the VMs that are of a kind, and which share of its memory one uses by the time in days."""


class MadeUp:
    """So many VMs; a Source. A VM is the same whatever is read with it, and however many there are."""

    def __init__(self, vms: int, days: int, seed: int, *, first: int = 0) -> None:
        """Take how many there are, for how long, what drives every random choice, and the number of the first."""
        self.grid = Grid(0, STEP_S, days * DAY_S // STEP_S)
        self.vms = tuple(map(str, range(first, first + vms)))
        self.about = f"a made-up fleet, {vms:,} VMs, seed {seed}"
        self._days, self._seed, self._first = days, seed, first

    @property
    def digest(self) -> str:
        """All that decides what it is made up of."""
        return f"{self._first} {len(self.vms)} {self._days} {self._seed}"

    def part(self, first: int, end: int) -> "MadeUp":
        """The VMs from `first` up to `end` alone."""
        return MadeUp(end - first, self._days, self._seed, first=self._first + first)

    def read(self, first: int, end: int) -> tuple[Usage, Oddities]:
        """The VMs from `first` up to `end`; none is odd, though some are off at times."""
        day = np.arange(self.grid.steps).astype(np.float64) * (STEP_S / DAY_S)
        shape = (end - first, self.grid.steps)
        capacity, used = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        names, shares = list(KINDS), [share for share, _ in KINDS.values()]
        for row in range(end - first):
            rng = np.random.default_rng([self._seed, self._first + first + row])
            size_bytes = int(rng.choice(_SIZES_GIB, p=_SIZE_SHARES)) * GIB
            share = KINDS[str(rng.choice(names, p=shares))][1](rng, day)
            is_on = share > 0
            noisy = np.clip(share + rng.normal(0, _NOISE, len(day)), 0.01, 0.98)
            capacity[row], used[row] = np.where(is_on, size_bytes, 0), np.where(is_on, noisy * size_bytes, 0)
        return Usage(self.grid, self.vms[first:end], capacity, used, np.ones(shape, np.bool_)), Oddities()
