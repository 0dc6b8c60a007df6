"""The page maps of the last hour, compressed; the oldest go when all of them take more than `BYTES_MAX`."""

import bisect
import zlib
from collections import deque
from typing import NamedTuple

KEPT_S = 3600.0
"""For how long a map is kept."""

BYTES_MAX = 16 << 20
"""Most that all maps take."""

EVERY_S = 10.0
"""A guest's maps are at least so far apart."""

_OVERHEAD_BYTES = 200

Regions = tuple[tuple[int, int, int], ...]


class KeptMap(NamedTuple):
    """A guest's map at one time.

    Attributes:
        t_s: when all of it was read.
        regions: where each region begins in the guest, its size and the number of its first block.
        packed: its letters, compressed.
    """

    t_s: float
    regions: Regions
    packed: bytes

    @property
    def letters(self) -> str:
        """A letter for each block."""
        return zlib.decompress(self.packed).decode("ascii")

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return len(self.packed) + _OVERHEAD_BYTES


class MapHistory:
    """The maps of all guests."""

    def __init__(self) -> None:
        """Have none."""
        self.nbytes = 0
        self._of: dict[str, list[KeptMap]] = {}
        self._order: deque[tuple[float, str]] = deque()

    def add(self, t_s: float, name: str, regions: Regions, letters: bytes) -> bool:
        """Keep a map that was read now; False if the one before is too young for another."""
        maps = self._of.setdefault(name, [])
        if maps and t_s - maps[-1].t_s < EVERY_S:
            return False
        maps.append(KeptMap(t_s, regions, zlib.compress(letters, 1)))
        self.nbytes += maps[-1].nbytes
        self._order.append((t_s, name))
        while self._order and (self._order[0][0] < t_s - KEPT_S or self.nbytes > BYTES_MAX):
            _, oldest = self._order.popleft()
            self.nbytes -= self._of[oldest].pop(0).nbytes
            if not self._of[oldest]:
                del self._of[oldest]
        return True

    def times(self, name: str) -> list[float]:
        """When there is a map of a guest, in order."""
        return [kept.t_s for kept in self._of.get(name, ())]

    def at(self, name: str, t_s: float) -> KeptMap | None:
        """The last map of a guest up to a time, or the first if that is later; None if there is none."""
        maps = self._of.get(name, [])
        place = bisect.bisect_right(maps, t_s, key=lambda kept: kept.t_s)
        return maps[max(0, place - 1)] if maps else None
