"""Usage on its grid as files of arrays, which any process of this machine reads without copying it whole.

The same VMs may be read more than once: a fleet of any size is drawn from those that were recorded.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from pagetide.fleet.usage.canonical import Grid, Source, Usage
from pagetide.fleet.usage.oddities import Oddities, together
from pagetide.fleet.usage.source import refuse_odd

_COLUMNS: dict[str, type[np.generic]] = {"capacity": np.float32, "used": np.float32, "valid": np.bool_}
_VMS_AT_ONCE = 128


@dataclasses.dataclass(frozen=True)
class Kept:
    """Usage in a folder; a Source, of which no more is in memory than what is read.

    Attributes:
        folder: where its files are.
        grid: the instants.
        about: what it is.
        vms: the names of its VMs.
        numbers: int64 [vm], in which row of the files each is.
    """

    folder: Path
    grid: Grid
    about: str
    vms: tuple[str, ...]
    numbers: npt.NDArray[np.int64]

    def read(self, first: int, end: int) -> tuple[Usage, Oddities]:
        """The VMs from `first` up to `end`; what was odd was told when they were kept."""
        rows = self.numbers[first:end]
        columns = (np.array(np.load(self.folder / f"{name}.npy", mmap_mode="r")[rows]) for name in _COLUMNS)
        return Usage(self.grid, self.vms[first:end], *columns), Oddities()

    @property
    def digest(self) -> str:
        """Hash of all that is read of it, with the names of its VMs."""
        digest = hashlib.sha256(msgspec.json.encode(self.vms) + self.numbers.tobytes())
        for name in _COLUMNS:
            with (self.folder / f"{name}.npy").open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def part(self, first: int, end: int) -> "Kept":
        """The VMs from `first` up to `end` alone."""
        return dataclasses.replace(self, vms=self.vms[first:end], numbers=self.numbers[first:end])

    def drawn(self, vms: int, seed: int) -> "Kept":
        """So many VMs, each drawn from these alone: one may be there more than once."""
        chosen = np.random.default_rng(seed).integers(0, len(self.vms), vms)
        return dataclasses.replace(
            self,
            about=f"{vms:,} VMs drawn with seed {seed} from {self.about}",
            vms=tuple(self.vms[number] for number in chosen),
            numbers=self.numbers[chosen],
        )


def keep(source: Source, folder: Path, tell: Callable[[int], None]) -> tuple[Kept, Oddities]:
    """Put usage into files in this folder, and say what was odd.

    Args:
        source: the usage.
        folder: is there, and has no such files.
        tell: is told how many more VMs are done.

    Raises:
        UsageError: too much of it is odd.
    """
    shape = (len(source.vms), source.grid.steps)
    files: dict[str, Any] = {
        name: open_memmap(folder / f"{name}.npy", "w+", dtype, shape) for name, dtype in _COLUMNS.items()
    }
    odd = list[Oddities]()
    for first in range(0, shape[0], _VMS_AT_ONCE):
        usage, found = source.read(first, min(first + _VMS_AT_ONCE, shape[0]))
        end = first + len(usage.vms)
        columns = (usage.capacity_bytes, usage.used_bytes, usage.valid)
        for file, column in zip(files.values(), columns, strict=True):
            file[first:end] = column
        odd.append(found)
        tell(end - first)
    oddities = together(odd)
    refuse_odd(source.about, oddities)
    return Kept(folder, source.grid, source.about, source.vms, np.arange(shape[0])), oddities
