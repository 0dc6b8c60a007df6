"""The thread's application: it fires up, eats a massive amount of memory, holds it, frees all of it, and is gone.

By default half of the memory is eaten as 2 MiB blocks, as an application with transparent huge pages does; the rest as
smaller ones, most of them single pages. The vCPUs eat at the same time, each its share, so that their blocks
interleave. On exit the memory is freed in the order in which it was allocated. It eats and frees as fast as it can, and
the next burst comes once the design has nothing left to do; or after a set time, so that designs share a schedule.
"""

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import Lives, lives
from pagetide.workload.mix import Mix, fill
from pagetide.workload.plan import Moment, Plan
from pagetide.workload.stream import Mark

REST_S = 0.5
"""How long a guest rests after a burst, once the design does."""


def one_burst(
    rng: np.random.Generator, *, eat_bytes: int, vcpus: int, mix: Mix, eats_at_s: float, frees_at_s: float
) -> list[Lives]:
    """The blocks of one burst, each vCPU's apart: `eat_bytes` in all, rounded down to whole pages for each."""
    pages = eat_bytes // PAGE_SIZE_BYTES // vcpus
    assert pages >= 1
    return [lives(eats_at_s, frees_at_s, fill(rng, pages, mix), vcpu) for vcpu in range(vcpus)]


def burst(
    *, eat_bytes: int, bursts: int, hold_s: float, vcpus: int, mix: Mix, seed: int, rest_s: float | None = None
) -> Plan:
    """Eat, hold, free, some times over.

    Args:
        eat_bytes: memory that is eaten in each burst.
        bursts: how many there are.
        hold_s: how long the memory is kept.
        vcpus: who eat it.
        mix: in blocks of which orders.
        seed: drives every random choice.
        rest_s: how long the guest rests after each burst, above 0, whether the design is done or not; None is until
            it is, and REST_S more.
    """
    period_s = hold_s + (REST_S if rest_s is None else rest_s)
    rng = np.random.default_rng(seed)
    parts: list[Lives] = []
    begins: list[tuple[Moment, Mark]] = []
    for number in range(bursts):
        eats_at_s = number * period_s
        frees_at_s = eats_at_s + hold_s
        parts += one_burst(rng, eat_bytes=eat_bytes, vcpus=vcpus, mix=mix, eats_at_s=eats_at_s, frees_at_s=frees_at_s)
        name = f"burst {number + 1} of {bursts}"
        begins.append((Moment(eats_at_s), Mark(0, f"{name}: eating", number, eats=True)))
        begins.append((Moment(frees_at_s, allocated=True), Mark(0, f"{name}: freeing", number, settle=rest_s is None)))
    return Plan(parts, begins, bursts * period_s)
