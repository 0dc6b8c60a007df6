"""An application that uses what a curve says: it grows and shrinks at given times, and keeps what it has in between.

Which memory it frees decides what it leaves behind. An application that frees what it allocated last leaves whole
areas; one that frees here and there leaves what it still uses scattered over all that it ever used.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, any_vcpu, lives
from pagetide.workload.mix import Mix, fill
from pagetide.workload.plan import Plan, plan_of


class _Held:
    """The blocks that are held, in the order in which they came."""

    def __init__(self, rng: np.random.Generator, mix: Mix) -> None:
        self._rng, self._mix = rng, mix
        self.order = np.zeros(0, np.uint8)
        self.born_s, self.dies_s = np.zeros(0), np.zeros(0)
        self._alive = np.zeros(0, np.int64)

    @property
    def pages(self) -> int:
        """How much that is."""
        return int((1 << self.order[self._alive].astype(np.int64)).sum())

    def grow(self, pages: int, from_s: float, until_s: float) -> None:
        """Allocate so many pages, at times between these."""
        new = fill(self._rng, pages, self._mix)
        self._alive = np.concatenate([self._alive, np.arange(len(self.order), len(self.order) + len(new))])
        self.order = np.concatenate([self.order, new])
        self.born_s = np.concatenate([self.born_s, np.linspace(from_s, until_s, len(new))])
        self.dies_s = np.concatenate([self.dies_s, np.full(len(new), STAYS)])

    def shrink(self, pages: int, scatter: float, from_s: float, until_s: float) -> None:
        """Free so many pages, at times between these: a share of them anywhere, then what came last.

        A block that is larger than what is still to be freed is passed over.
        """
        anywhere = self._fitting(self._rng.permutation(len(self._alive)), round(pages * scatter))
        rest = pages - int((1 << self.order[self._alive[anywhere]].astype(np.int64)).sum())
        last = np.setdiff1d(np.arange(len(self._alive)), anywhere)[::-1]
        freed = np.concatenate([anywhere, self._fitting(last, rest)]).astype(np.int64)
        self.dies_s[self._alive[freed]] = np.linspace(from_s, until_s, len(freed))
        self._alive = np.delete(self._alive, freed)

    def _fitting(self, places: npt.NDArray[np.int64], pages: int) -> npt.NDArray[np.int64]:
        """The first of these places whose blocks have together at most so many pages."""
        sizes = 1 << self.order[self._alive[places]].astype(np.int64)
        taken: list[npt.NDArray[np.int64]] = []
        while pages > 0 and len(places):
            small = sizes <= pages
            places, sizes = places[small], sizes[small]
            count = int(np.searchsorted(sizes.cumsum(), pages, "right"))
            taken.append(places[:count])
            pages -= int(sizes[:count].sum())
            places, sizes = places[count:], sizes[count:]
        return np.concatenate(taken) if taken else np.zeros(0, np.int64)


def curve(
    *,
    at_s: Sequence[float],
    used_bytes: Sequence[float],
    move_s: float,
    scatter: float,
    end_s: float,
    vcpus: int,
    mix: Mix,
    seed: int,
) -> Plan:
    """Follow a curve; in whole pages, and short of it by less than a block where only larger ones are left to free.

    Args:
        at_s: when use changes, ascending, the first of them 0.
        used_bytes: to what.
        move_s: how long a change takes; no longer than until the next.
        scatter: which share of what is freed is drawn from all that is held; the rest is what came last.
        end_s: when it is over.
        vcpus: who allocate; each frees what it allocated.
        mix: the orders of the blocks, by memory.
        seed: drives every random choice.
    """
    assert at_s[0] == 0
    assert 0 <= scatter <= 1
    rng = np.random.default_rng(seed)
    held = _Held(rng, mix)
    pages = 0
    for now_s, used in zip(at_s, used_bytes, strict=True):
        wanted = max(1, round(used / PAGE_SIZE_BYTES)) if now_s == 0 else round(used / PAGE_SIZE_BYTES)
        until_s = now_s + move_s if now_s > 0 else 0.0
        if wanted > pages:
            held.grow(wanted - pages, now_s, until_s)
        elif wanted < pages:
            held.shrink(pages - wanted, scatter, now_s, until_s)
        pages = held.pages
    blocks = lives(held.born_s, held.dies_s, held.order, any_vcpu(rng, len(held.order), vcpus))
    return plan_of(blocks, name="curve: following it", end_s=end_s, starting="curve: starting")
