"""Measures what a pass of `pool` costs the guest's worker that finds nothing to report, as most do.

In a guest of 2 GiB with as many unreported blocks, in as many frames, as on a trace of a compiler's at a pass; a tenth
of a second apart, so that what a pass touches has left the processor's nearer caches.
"""

import time

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import PASSES, WALKED_BLOCKS
from pagetide.guest.reporting.designs.pool import Pool
from pagetide.guest.reporting.fits import POOL_DELAY_S_MIN
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.memory.frame_table import FRAME_ORDER, FRAME_PAGES
from pagetide.units import PAGE_SIZE_BYTES

_RAM_BYTES = 2 << 30
_FRAMES = 96
_APART_PAGES = 32
"""Every so many pages one is unreported: 1536 blocks in all."""

_PASSES = 10
_STRETCH_MAX_S = 2.5
"""By then the rate of allocations has not decayed so far that `pool` would report anything."""

_SETTINGS = ReportingSettings(order=0, delay_s=POOL_DELAY_S_MIN, idle_s=POOL_DELAY_S_MIN)


def measure_surveying(stretches: int, walk_ns: float) -> list[float]:
    """Nanoseconds a pass in the worker's own thread, its waits and wake-ups included; an entry a stretch.

    Args:
        stretches: how many, of some passes each.
        walk_ns: what each block that is looked at costs, which counts apart.
    """
    return [_pass_ns(walk_ns) for _ in range(1 + stretches)][1:]


class _Marked(Pool):
    """Notes what its thread had spent by the time at which it is woken, and what had been done."""

    spent_s = 0.0
    passes = walked = 0

    def start(self, now_s: float) -> None:
        self._began_s = time.thread_time()
        super().start(now_s)

    def woken(self, now_s: float) -> None:
        words = self._zone.words
        self.spent_s = time.thread_time() - self._began_s
        self.passes, self.walked = int(words[PASSES]), int(words[WALKED_BLOCKS])
        super().woken(now_s)


def _pass_ns(walk_ns: float) -> float:
    zone = Zone(_RAM_BYTES // PAGE_SIZE_BYTES, watermarks=Watermarks(0, 0, 0), pcp_orders=())
    zone.tick(time.monotonic())
    for _ in range((_RAM_BYTES // PAGE_SIZE_BYTES - _FRAMES * FRAME_PAGES) >> FRAME_ORDER):
        zone.allocate(FRAME_ORDER)
    held = [zone.allocate(0) for _ in range(_FRAMES * FRAME_PAGES)]
    design = _Marked(zone, _SETTINGS)
    with GuestWorker(design, None, None) as worker:
        worker.wait_until(lambda: bool(zone.words[PASSES]) and worker.at_rest, look_again_s=POOL_DELAY_S_MIN)
        before = int(zone.words[PASSES])
        zone.tick(time.monotonic() + 1)  # so that what follows was not free when the design began
        for pfn in held[::_APART_PAGES]:
            assert pfn is not None
            zone.free(pfn, 0)
            assert zone.allocate(0) == pfn  # all that is taken, so that the rate has `pool` keep it
            zone.free(pfn, 0)
        worker.wake()
        worker.wait_until(lambda: bool(zone.words[PASSES] - before >= _PASSES), _STRETCH_MAX_S, POOL_DELAY_S_MIN)
    passes, walked = int(zone.words[PASSES]) - design.passes, int(zone.words[WALKED_BLOCKS]) - design.walked
    assert passes > 0
    return ((worker.cpu_s - design.spent_s) * 1e9 - walked * walk_ns) / passes
