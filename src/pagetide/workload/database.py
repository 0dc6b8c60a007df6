"""A database that fills memory with cache, up to a share of it, and keeps it.

It reads its tables in at a steady pace until the cache has its size. From then on, ROUNDS times over, it evicts a part
of the cache at once, as after a table was dropped or a bulk load, and fills it again at the same pace. So free memory
is scarce most of the time, and what becomes free is scattered over the whole cache.
"""

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, Lives, any_vcpu, lives
from pagetide.workload.mix import Mix, fill
from pagetide.workload.plan import Plan, plan_of

ROUNDS = 6
FILL_SHARE = 0.25
"""How much of the time the first filling takes."""

EVICTED_SHARE = 0.25
"""How much of the cache each round evicts."""


def database(*, share_bytes: int, duration_s: float, vcpus: int, mix: Mix, seed: int) -> Plan:
    """Fill, evict, fill again.

    Args:
        share_bytes: the size of the cache.
        duration_s: how long the database runs.
        vcpus: who run it.
        mix: the orders of the cache's blocks.
        seed: drives every random choice.
    """
    rng = np.random.default_rng(seed)
    orders = fill(rng, share_bytes // PAGE_SIZE_BYTES, mix)
    owners = any_vcpu(rng, len(orders), vcpus)
    fill_s = FILL_SHARE * duration_s
    round_s = (duration_s - fill_s) / ROUNDS
    born_s = np.linspace(0.0, fill_s, len(orders), endpoint=False)
    parts: list[Lives] = []
    for number in range(ROUNDS):
        evicts_s = fill_s + number * round_s
        evicted = np.flatnonzero(rng.random(len(orders)) < EVICTED_SHARE)
        parts.append(lives(born_s[evicted], evicts_s, orders[evicted], owners[evicted]))
        # The pace of the first filling, or a little faster where the round is too short for that.
        refill_s = min(EVICTED_SHARE * fill_s, round_s / 2)
        born_s[evicted] = evicts_s + np.linspace(round_s / 8, round_s / 8 + refill_s, len(evicted), endpoint=False)
    parts.append(lives(born_s, STAYS, orders, owners))
    return plan_of(*parts, name="database: filling, evicting, filling again", end_s=duration_s)
