"""A small guest, in which one batch of reports is about a tenth of memory, and which eats close to its limit.

Most of its memory stays. The rest, WAVE_SHARE of RAM in 2 MiB blocks, is freed and eaten again at once, wave after
wave. A wave takes nearly all there is: if what it freed is out for reporting when it is to be eaten, then that is what
is missing. So the thread's false OOM comes about (S15): an allocation fails though the guest has free memory.
"""

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, lives
from pagetide.workload.mix import Mix, fill
from pagetide.workload.plan import Plan, plan_of

WAVE_SHARE = 0.125
"""How much of RAM a wave frees and eats again: a batch of 32 blocks of 2 MiB in a guest of 512 MiB."""

FREE_S = 0.002
"""How long the memory of a wave stays free."""

_ORDER = 9


def small(
    *, ram_bytes: int, share_bytes: int, rate_per_s: float, duration_s: float, vcpus: int, mix: Mix, seed: int
) -> Plan:
    """Eat in waves.

    Args:
        ram_bytes: the guest's memory.
        share_bytes: what it holds at most; more than a wave.
        rate_per_s: waves a second; each takes longer than it is free.
        duration_s: how long it goes on.
        vcpus: who eat.
        mix: the orders of the blocks that stay.
        seed: drives every random choice.
    """
    rng = np.random.default_rng(seed)
    wave = int(WAVE_SHARE * ram_bytes) // (PAGE_SIZE_BYTES << _ORDER)
    stays = fill(rng, share_bytes // PAGE_SIZE_BYTES - (wave << _ORDER), mix)
    assert len(stays)
    frees_s = np.arange(1, max(2, int(rate_per_s * duration_s))) / rate_per_s
    eats_s = np.concatenate([[0.0], frees_s + FREE_S])
    ends_s = np.concatenate([frees_s, [STAYS]])
    waves = lives(
        np.repeat(eats_s, wave), np.repeat(ends_s, wave), _ORDER, np.tile(np.arange(wave) % vcpus, len(eats_s))
    )
    blocks = lives(0.0, STAYS, stays, np.arange(len(stays)) % vcpus)
    return plan_of(blocks, waves, name="small guest: waves", end_s=duration_s, starting="small guest: starting")
