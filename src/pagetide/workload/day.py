"""A mixed day: an application bursts at random hours, over a web server that is quiet most of the time.

The day is squeezed into as many seconds as wanted: hours, and the server's breath, shrink with it; how long a burst is
held and how many requests come in a second do not. A real day lasts 86400 s.
"""

import numpy as np

from pagetide.workload.burst import one_burst
from pagetide.workload.lives import Lives
from pagetide.workload.mix import Mix
from pagetide.workload.plan import BEGIN, Moment, Plan, behind
from pagetide.workload.stream import Mark
from pagetide.workload.web import server

SERVER_SHARE = 0.2
"""What the server holds at most, of what a burst eats."""

QUIET_SHARE = 0.5
"""How much of what a burst leaves of its part of the day is quiet after it, at the least."""

HOURS = 24


def day(
    *,
    eat_bytes: int,
    bursts: int,
    hold_s: float,
    rate_per_s: float,
    duration_s: float,
    vcpus: int,
    mix: Mix,
    seed: int,
) -> Plan:
    """Serve, and burst now and then.

    Args:
        eat_bytes: what each burst eats.
        bursts: how many there are in the day, no two in the same part of it.
        hold_s: how long a burst keeps what it ate; less than its part of the day.
        rate_per_s: the server's requests a second.
        duration_s: how long the day lasts.
        vcpus: who serve and eat.
        mix: the orders of the bursts' and the server's blocks.
        seed: drives every random choice.
    """
    rng = np.random.default_rng(seed)
    part_s = duration_s / bursts
    assert hold_s < part_s
    eats_s = part_s * np.arange(bursts) + rng.uniform(0, (1 - QUIET_SHARE) * (part_s - hold_s), bursts)
    served = server(
        rng,
        share_bytes=int(SERVER_SHARE * eat_bytes),
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        breaths=1,
        vcpus=vcpus,
        mix=mix,
    )
    eaten: list[Lives] = []
    begins = [(BEGIN, Mark(0, "day: quiet"))]
    for burst, eats_at_s in enumerate(map(float, eats_s)):
        frees_at_s = eats_at_s + hold_s
        eaten += one_burst(rng, eat_bytes=eat_bytes, vcpus=vcpus, mix=mix, eats_at_s=eats_at_s, frees_at_s=frees_at_s)
        hour = f"{int(eats_at_s / duration_s * HOURS):02}:00"
        for at_s, what, then in ((eats_at_s, "eating", "day: holding"), (frees_at_s, "freeing", "day: quiet")):
            name = f"burst {burst + 1} of {bursts}, {hour}: {what}"
            begins += [(Moment(at_s), Mark(0, name, burst, what == "eating")), (behind(at_s), Mark(0, then))]
    return Plan([*served, *eaten], begins, duration_s)
