"""A mostly idle web server: small requests, and a working set that breathes slowly.

Half of its memory stays for as long as it runs. The other half comes and goes, as caches and sessions do with the hours
of a day: it swells and shrinks along a cosine, BREATHS times over. Each request allocates one small block and frees it
some milliseconds later.
"""

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, Lives, Orders, Vcpus, any_vcpu, lives
from pagetide.workload.mix import Mix, draw, fill
from pagetide.workload.plan import Plan, plan_of

BREATHS = 3
REQUEST_S = 0.02
"""How long a request keeps its block, on average."""

REQUEST_MIX: Mix = {0: 0.5, 1: 0.2, 2: 0.2, 3: 0.1}


def server(
    rng: np.random.Generator,
    *,
    share_bytes: int,
    rate_per_s: float,
    duration_s: float,
    breaths: int,
    vcpus: int,
    mix: Mix,
) -> tuple[Lives, ...]:
    """The blocks of a web server, as `web` describes them."""
    half_pages = max(1, share_bytes // PAGE_SIZE_BYTES // 2)
    stays, comes = fill(rng, half_pages, mix), fill(rng, half_pages, mix)
    requests = int(rate_per_s * duration_s)
    begin_s = np.sort(rng.uniform(0, duration_s, requests))
    return (
        lives(0.0, STAYS, stays, any_vcpu(rng, len(stays), vcpus)),
        *_breathing(comes, any_vcpu(rng, len(comes), vcpus), duration_s / breaths, breaths),
        lives(
            begin_s,
            begin_s + rng.exponential(REQUEST_S, requests),
            draw(rng, requests, REQUEST_MIX),
            any_vcpu(rng, requests, vcpus),
        ),
    )


def web(*, share_bytes: int, rate_per_s: float, duration_s: float, vcpus: int, mix: Mix, seed: int) -> Plan:
    """Serve requests.

    Args:
        share_bytes: what the server holds at most, besides requests; at the least it is half of that.
        rate_per_s: requests a second, a block each.
        duration_s: how long it serves.
        vcpus: who serve.
        mix: the orders of the blocks that it holds.
        seed: drives every random choice.
    """
    parts = server(
        np.random.default_rng(seed),
        share_bytes=share_bytes,
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        breaths=BREATHS,
        vcpus=vcpus,
        mix=mix,
    )
    return plan_of(*parts, name="web server: serving", end_s=duration_s, starting="web server: starting")


def _breathing(orders: Orders, owners: Vcpus, period_s: float, breaths: int) -> tuple[Lives, ...]:
    """Each block is there while the cosine is above its level, which it crosses twice a period."""
    levels = (np.arange(len(orders)) + 0.5) / max(1, len(orders))
    rises_s = period_s * np.arccos(1 - 2 * levels) / (2 * np.pi)
    begins_s = period_s * np.arange(breaths)
    return tuple(lives(begin_s + rises_s, begin_s + period_s - rises_s, orders, owners) for begin_s in begins_s)
