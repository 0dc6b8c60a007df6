"""Allocation churn: blocks of a mix of sizes come at a set rate, and each lives for a random time.

The rate and how much is held on average decide how long a block lives: exponentially distributed, so that as many die
in a second as are born. It begins in that steady state.
"""

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import any_vcpu, lives
from pagetide.workload.mix import Mix, draw, mean_pages
from pagetide.workload.plan import Plan, plan_of


def churn(*, share_bytes: int, rate_per_s: float, duration_s: float, vcpus: int, mix: Mix, seed: int) -> Plan:
    """Allocate and free.

    Args:
        share_bytes: what is held on average.
        rate_per_s: allocations a second, and as many frees.
        duration_s: how long it goes on.
        vcpus: who allocate; each frees what it allocated.
        mix: the orders of the blocks, by memory.
        seed: drives every random choice.
    """
    rng = np.random.default_rng(seed)
    held = max(1, round(share_bytes / PAGE_SIZE_BYTES / mean_pages(mix)))
    came = int(rate_per_s * duration_s)
    born_s = np.concatenate([np.zeros(held), np.sort(rng.uniform(0, duration_s, came))])
    dies_s = born_s + rng.exponential(held / rate_per_s, len(born_s))
    blocks = lives(born_s, dies_s, draw(rng, len(born_s), mix), any_vcpu(rng, len(born_s), vcpus))
    return plan_of(blocks, name="churn: allocating and freeing", end_s=duration_s, starting="churn: starting")
