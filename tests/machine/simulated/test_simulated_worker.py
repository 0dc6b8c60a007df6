"""The worker of a simulated guest: what it asks its design for, and when."""

import numpy as np

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.registry import make_design
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.machine.costs import PS_PER_S, read_costs
from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.vcpu_layout import SHARED_WORDS
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.virtio.balloon import Queue


class HeldHost:
    """A driver whose host answers when the test says so."""

    def __init__(self) -> None:
        self.submitted = self.answered = 0

    def submit(self, batch: Batch, queue: Queue) -> None:
        self.submitted += 1

    def completed(self) -> bool:
        return self.answered >= self.submitted

    def arm(self) -> bool:
        return self.completed()


class Rig:
    """A zone of four largest blocks, of which a worker reports one at a time after a second."""

    def __init__(self) -> None:
        self.loop, self.host = Loop(), HeldHost()
        self.called = Doorbell(self.loop)
        zone, shared = Zone(4096), np.zeros(SHARED_WORDS, np.int64)
        self.design = make_design("scan", zone, ReportingSettings(order=10, delay_s=1.0, capacity=1))
        self.worker = SimulatedWorker(
            self.loop, zone, self.design, self.host, self.called, read_costs(), shared, Processors(2)
        )
        self.loop.resume(self.worker.run())

    def run(self, until_s: float) -> None:
        """Let happen what happens up to this time."""
        while self.loop.next_ps <= min(until_s * PS_PER_S, NEVER_PS - 1):
            self.loop.step()

    def answer(self) -> None:
        """The host deals with what is out, now."""
        self.host.answered = self.host.submitted
        self.loop.at(self.loop.now_ps, self.called.ring)


def test_a_design_is_switched_off_as_soon_as_no_batch_is_out() -> None:
    """What is left of a pass is not reported first, and the design begins anew when it is switched on."""
    rig = Rig()
    rig.run(2.0)
    assert rig.host.submitted == 1
    rig.worker.set_fault("off", begins=True)
    rig.run(3.0)
    assert rig.design.due_s is not None
    rig.answer()
    rig.run(10.0)
    assert rig.host.submitted == 1
    assert rig.design.due_s is None
    rig.worker.set_fault("off", begins=False)
    rig.run(20.0)
    assert rig.host.submitted == 2


def test_a_wake_that_comes_late_is_nothing_to_a_design_that_is_off() -> None:
    """What was freed before the design was switched off asks for no pass after it, which would be due for ever."""
    rig = Rig()
    rig.worker.set_fault("off", begins=True)
    rig.run(0.5)
    rig.worker.wake()
    rig.run(10.0)
    assert rig.design.due_s is None
    assert rig.worker.batches_begun == 0
    assert not rig.worker.at_rest
