"""The thread's application: it fires up, eats a massive amount of memory, holds it, frees all of it, and is gone.

Half of the memory is eaten as 2 MiB blocks, as an application with transparent huge pages does; the rest as smaller
ones, most of them single pages. The vCPUs eat at the same time, each its share, so that their blocks interleave. On
exit the memory is freed in the order in which it was allocated.
"""

import numpy as np
import numpy.typing as npt

from pagetide.guest.vcpu import ALLOCATE, FREE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.phases import Phase, operations

ORDER_SHARES = {9: 0.5, 4: 0.125, 2: 0.125, 0: 0.25}
"""Which share of the memory is eaten in blocks of each order."""

REST_S = 0.5
"""The least that a guest rests after a burst."""


class Burst:
    """Eat, hold, free, some times over."""

    slots: int
    phases: tuple[Phase, ...]

    def __init__(self, *, eat_bytes: int, bursts: int, hold_s: float, vcpus: int, seed: int) -> None:
        """Work out the phases: `eat_bytes` in all for each burst, rounded down to whole pages for each vCPU."""
        assert eat_bytes >= vcpus * PAGE_SIZE_BYTES
        rng = np.random.default_rng(seed)
        pages = eat_bytes // PAGE_SIZE_BYTES // vcpus
        phases = []
        self.slots = 0
        for burst in range(bursts):
            orders = [_draw_orders(rng, pages) for _ in range(vcpus)]
            slots = [np.arange(len(drawn), dtype=np.int32) for drawn in orders]
            self.slots = max(self.slots, *(len(drawn) for drawn in orders))
            label = f"burst {burst + 1} of {bursts}"
            eat, release = (
                tuple(operations(kind, drawn, places) for drawn, places in zip(orders, slots, strict=True))
                for kind in (ALLOCATE, FREE)
            )
            phases.append(Phase(f"{label}: eating", burst, True, eat, hold_s, settle=False))
            phases.append(Phase(f"{label}: freeing", burst, False, release, REST_S, settle=True))
        self.phases = tuple(phases)


def _draw_orders(rng: np.random.Generator, pages: int) -> npt.NDArray[np.uint8]:
    """Orders of blocks, shuffled, that hold exactly this many pages."""
    drawn = [np.full(int(pages * share) >> order, order, np.uint8) for order, share in ORDER_SHARES.items()]
    rest = pages - sum(len(blocks) << int(blocks[0]) for blocks in drawn if len(blocks))
    blocks = np.concatenate([*drawn, np.zeros(rest, np.uint8)])
    rng.shuffle(blocks)
    return blocks
