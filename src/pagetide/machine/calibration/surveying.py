"""Measures what a pass of `pool` costs the guest's worker, which surveys all that is unreported, with nothing to do."""

import time

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import PASSES, WALKED_BLOCKS
from pagetide.guest.reporting.designs.pool import Pool
from pagetide.guest.reporting.fits import POOL_DELAY_S_MIN
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES

_RAM_BYTES = 2 << 30
_KEPT_BLOCKS = 64
_PASSES = 10
_STRETCH_MAX_S = 2.5
"""Less than what `pool` lets pass before it reports anything."""


def measure_surveying(stretches: int, walk_ns: float) -> list[float]:
    """Nanoseconds a pass in the worker's own thread, its waits and wake-ups included; an entry a stretch.

    Args:
        stretches: how many, of some passes each.
        walk_ns: what each block that is looked at costs, which counts apart.
    """
    return [_pass_ns(walk_ns) for _ in range(1 + stretches)][1:]


def _pass_ns(walk_ns: float) -> float:
    zone = Zone(_RAM_BYTES // PAGE_SIZE_BYTES, watermarks=Watermarks(0, 0, 0))
    held = [zone.allocate(ORDER_MAX) for _ in range(_RAM_BYTES // PAGE_SIZE_BYTES >> ORDER_MAX)]
    now_s = time.monotonic()
    zone.tick(now_s)
    with GuestWorker(Pool(zone, ReportingSettings(order=0, delay_s=POOL_DELAY_S_MIN)), None, None) as worker:
        worker.wait_until(lambda: bool(zone.words[PASSES]) and worker.at_rest, look_again_s=POOL_DELAY_S_MIN)
        zone.tick(now_s + 1)  # so that what follows was not free when the design began
        for pfn in held[:_KEPT_BLOCKS]:
            assert pfn is not None
            zone.free(pfn, ORDER_MAX)
        worker.wake()
        worker.wait_until(lambda: bool(zone.words[PASSES] > _PASSES), _STRETCH_MAX_S, POOL_DELAY_S_MIN)
    passes, walked = (int(zone.words[word]) for word in (PASSES, WALKED_BLOCKS))
    assert passes > 0
    return (worker.cpu_s * 1e9 - walked * walk_ns) / passes
