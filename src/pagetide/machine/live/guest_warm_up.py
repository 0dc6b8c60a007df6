"""Compiles or loads the guest's kernels before the clock starts, by doing a little of everything on a tiny guest."""

import mmap

import numpy as np

from pagetide.guest.allocator.operation import ALLOCATE, FREE, operations
from pagetide.guest.allocator.report_costs import note_reported
from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.driver.reporting import BalloonDriver
from pagetide.guest.reporting.designs.balloon import Balloon
from pagetide.guest.reporting.designs.scan import Scan
from pagetide.guest.reporting.fits import POOL_DELAY_S_MIN
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.vcpu import drain_idle, next_act, note_false_oom, note_wait, run_operations
from pagetide.units import PAGE_SIZE_BYTES

_PAGES = 4096


class _NobodyThere:
    """A device that has every feature and never answers."""

    def negotiate(self, wanted: int) -> int:
        return wanted

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        pass

    def driver_ok(self) -> None:
        pass

    def kick(self, index: int) -> None:
        pass

    def write_config(self, offset: int, value: int) -> None:
        pass


def warm_up_guest() -> None:
    """Call every kernel that a guest's threads will call, on memory of its own."""
    with mmap.mmap(-1, _PAGES * PAGE_SIZE_BYTES) as ram:
        view = np.frombuffer(ram, np.int64)
        zone = Zone(_PAGES)
        held = np.full(2, -1, np.int64)
        for kind in (ALLOCATE, FREE):
            some = operations(kind, [0, 3], [0, 1])
            run_operations(zone.words, zone.pages, view.ctypes.data, 0, some, held, np.zeros(1, np.int64), len(some))
        next_act(0, 0.0, 0.0, False)
        drain_idle(zone.words, zone.pages, 0)
        take_wake(zone.words)
        note_wait(zone.words, 0, 0)
        note_false_oom(zone.words)
        driver = BalloonDriver(zone, view.ctypes.data, _NobodyThere(), 2)
        design = Scan(zone, ReportingSettings(order=9, delay_s=0.0, capacity=2))
        design.start(0.0)
        batch = design.next_batch(0.0)
        assert batch is not None
        driver.submit(batch)
        driver.completed()
        driver.arm()
        note_reported(zone.words, zone.pages, batch)
        design.done(batch, True, 0.0)
        while (batch := design.next_batch(0.0)) is not None:
            design.done(batch, True, 0.0)
        design.stop()
        del view


def warm_up_design(name: str) -> None:
    """Call the kernels of a design: switch it on, let it have a pass, and switch it off."""
    zone = Zone(_PAGES)
    due_s = POOL_DELAY_S_MIN
    design = make_design(name, zone, ReportingSettings(delay_s=due_s, capacity=2))
    if isinstance(design, Balloon):
        design.wanted_pages = 1
    design.start(0.0)
    while (batch := design.next_batch(due_s)) is not None:
        design.done(batch, True, due_s)
    design.stop()
