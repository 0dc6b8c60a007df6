"""An application that uses what a curve says: it grows and shrinks at given times, and keeps what it has in between.

Which memory it frees decides what it leaves behind. An application that frees what it allocated last leaves whole
areas; one that frees here and there leaves what it still uses scattered over all that it ever used.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, any_vcpu, lives
from pagetide.workload.mix import Mix
from pagetide.workload.plan import Plan, plan_of


class _Held:
    """The blocks that are held: of each order as many as its share of the memory asks for, to the nearest block.

    Were each change divided into orders by itself, what a small one leaves over would be in single pages, and a guest
    whose use hums would be of these alone after a while.
    """

    def __init__(self, rng: np.random.Generator, mix: Mix) -> None:
        self._rng, self._mix = rng, {0: 0.0, **mix}
        self.order = np.zeros(0, np.uint8)
        self.born_s, self.dies_s = np.zeros(0), np.zeros(0)
        self._alive = {order: np.zeros(0, np.int64) for order in self._mix}

    def move(self, pages: int, scatter: float, from_s: float, until_s: float) -> None:
        """Hold so many pages by allocating and freeing at times between these.

        Of what is freed a share is drawn from all that is held, and the rest is what came last, by order.
        """
        freed, grown = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
        for order, share in self._mix.items():
            alive, wanted = self._alive[order], round(pages * share / (1 << order))
            if len(alive) > wanted:
                freed.append(self._pick(alive, len(alive) - wanted, scatter))
                self._alive[order] = np.setdiff1d(alive, freed[-1], assume_unique=True)
            else:
                grown.append(np.full(wanted - len(alive), order, np.uint8))
        gone = self._rng.permutation(np.concatenate(freed))
        self.dies_s[gone] = np.linspace(from_s, until_s, len(gone))
        self._add(self._rng.permutation(np.concatenate(grown)), from_s, until_s)

    def start(self) -> None:
        """Hold a page if nothing is held yet: a stream begins with an allocation."""
        if not len(self.order):
            self._add(np.zeros(1, np.uint8), 0.0, 0.0)

    def _pick(self, alive: npt.NDArray[np.int64], count: int, scatter: float) -> npt.NDArray[np.int64]:
        """So many of the blocks of an order, which are in the order in which they came."""
        anywhere = self._rng.choice(alive, round(count * scatter), replace=False)
        rest = np.setdiff1d(alive, anywhere, assume_unique=True)
        return np.concatenate([anywhere, rest[len(rest) - (count - len(anywhere)) :]])

    def _add(self, orders: npt.NDArray[np.uint8], from_s: float, until_s: float) -> None:
        first = len(self.order)
        self.order = np.concatenate([self.order, orders])
        self.born_s = np.concatenate([self.born_s, np.linspace(from_s, until_s, len(orders))])
        self.dies_s = np.concatenate([self.dies_s, np.full(len(orders), STAYS)])
        for order in self._alive:
            own = first + np.flatnonzero(orders == order)
            self._alive[order] = np.concatenate([self._alive[order], own])


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
    """Follow a curve, to the nearest block of each order.

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
    for now_s, used in zip(at_s, used_bytes, strict=True):
        held.move(round(used / PAGE_SIZE_BYTES), scatter, now_s, now_s + move_s if now_s > 0 else 0.0)
        held.start()
    blocks = lives(held.born_s, held.dies_s, held.order, any_vcpu(rng, len(held.order), vcpus))
    return plan_of(blocks, name="curve: following it", end_s=end_s, starting="curve: starting")
