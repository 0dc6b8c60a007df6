"""One worker for every machine: on the same script of waits the live, simulated and explored ones do the same."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from pagetide import linux
from pagetide.explorer.actors import Worker as ExploredWorker
from pagetide.explorer.machine import ExploredMachine
from pagetide.explorer.scenarios import SCENARIOS
from pagetide.explorer.source import UNTIL
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.reporting.design import Batch
from pagetide.guest.worker import Reporting
from pagetide.machine.costs import read_costs
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.vcpu_layout import SHARED_WORDS
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.virtio.balloon import Queue
from tests.explorer.pausing import Pausing

SCRIPTS = {
    "woken": ["wake"],
    "not woken": ["ring"],
    "woken while off": ["off", "wake", "on", "wake"],
    "off and on at once": ["off on"],
    "no room": ["full", "wake", "room", "wake"],
    "due": ["due", "wake"],
}
"""What happens at each rest of the worker, one after the other; then it is stopped."""

HOSTS: dict[str, list[Any]] = {
    "the host is done at once": [True],
    "it is done while a call is asked for": [False, "armed late", True],
    "it calls": [False, "armed", True],
    "it calls for nothing": [False, "armed", False, "armed", True],
}
"""What the driver finds when it looks for a batch, and when it asks for a call; over and over."""


class Scripted:
    """A design with two batches a pass, its driver, and whoever meddles, all in one; it writes down what is asked."""

    synchronous = False
    queue = Queue.REPORTING

    def __init__(self, script: list[str], host: list[Any]) -> None:
        self.log: list[str] = []
        self.due_s: float | None = None
        self._script, self._host = [*script], host
        self._finds: list[Any] = []
        self._left = 0
        self.reporting: Any = None
        self.run: Callable[[Any], None] = lambda _: None
        self.call: Callable[[], None] = lambda: None

    @property
    def at_rest(self) -> bool:
        """The worker is about to rest: now the next thing happens."""
        event = self._script.pop(0) if self._script else "stop"
        self.log.append(f"rest, {event}")
        reporting = self.reporting
        if event == "due":
            self.due_s = 0.0
        if event in ("full", "room"):
            reporting.ring_full = event == "full"
        reporting.stopping = event == "stop"
        for word in event.split():
            if word in ("on", "off"):
                self.run(reporting.switch(word == "on"))
        self.run(reporting.wake() if event == "wake" else reporting.ring())
        return False

    def start(self, now_s: float) -> None:
        self.log.append("start")
        self._left = 2

    def stop(self) -> None:
        self.log.append("stop")

    def woken(self, now_s: float) -> None:
        self.log.append("woken")
        self._left = 2

    def next_batch(self, now_s: float) -> Batch | None:
        self.log.append("next_batch")
        self.due_s = None
        self._left -= 1
        return np.arange(2) if self._left >= 0 else None

    def done(self, batch: Batch, reported: bool, now_s: float) -> None:
        self.log.append(f"done, {'' if reported else 'not '}reported")

    def submit(self, batch: Batch, queue: Queue) -> None:
        self.log.append("submit")
        self._finds = [*self._host]

    def completed(self) -> bool:
        self.log.append("completed")
        return bool(self._finds.pop(0))

    def arm(self) -> bool:
        found = self._finds.pop(0)
        self.log.append(str(found))
        if found == "armed":
            self.call()
        return bool(found == "armed late")


class Calls:
    """Where a live worker notices calls."""

    def __init__(self) -> None:
        self.call_fd, self.connection_fd = linux.eventfd(), linux.eventfd()

    def take_call(self) -> None:
        linux.eventfd_read(self.call_fd)


def live(scripted: Scripted) -> Reporting:
    """Run it with a thread and eventfds."""
    calls = Calls()
    scripted.reporting = worker = GuestWorker(scripted, scripted, calls)  # type: ignore[arg-type]
    scripted.call = lambda: linux.eventfd_write(calls.call_fd)
    with worker:
        worker._thread.join(10)
        assert not worker._thread.is_alive()
    assert worker.failure is None
    for fd in (calls.call_fd, calls.connection_fd):
        os.close(fd)
    return worker


def simulated(scripted: Scripted) -> Reporting:
    """Run it in virtual time."""
    loop, words = Loop(), np.zeros(SHARED_WORDS, np.int64)
    called = Doorbell(loop)
    scripted.call = lambda: loop.at(loop.now_ps, called.ring)
    scripted.reporting = worker = SimulatedWorker(
        loop, Zone(1024), scripted, scripted, called, read_costs(), words, Processors(2)  # type: ignore[arg-type]
    )  # fmt: skip
    loop.resume(worker.run())
    while loop.next_ps < NEVER_PS:
        loop.step()
    return worker


@cache
def _machine() -> ExploredMachine:
    return ExploredMachine("scan", SCENARIOS["start"])


def explored(scripted: Scripted) -> Any:
    """Run it as an actor, one stretch after the other."""
    machine = _machine()
    machine.glue.called = machine.glue.rung = False
    steps = machine.worker.steps
    reporting = machine.reporting
    reporting.design = reporting.driver = Pausing(scripted)
    steps.step, reporting.on = "start", False
    reporting.was_woken = reporting.stopping = reporting.ring_full = False
    reporting.wanted_on = True
    reporting.batches_begun = reporting.batches_done = 0
    scripted.reporting, scripted.run = reporting, machine.finish
    scripted.call = lambda: setattr(machine.glue, "called", True)
    actor = ExploredWorker(machine, "reporter", steps)
    stretch: str | None = actor.first
    while stretch != actor.then or actor.then != "begin":
        assert stretch is not None
        generator = actor.stretch(stretch)
        try:
            while True:
                pause = next(generator)
                assert pause.kind != UNTIL or pause.ready(), "it waits for what never comes"
        except StopIteration as end:
            stretch = end.value
    return reporting


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_all_machines_run_the_same_steps(script: str, host: str) -> None:
    """What the design and the driver are asked, and what is counted, is the same in each."""
    logs, counts = [], []
    for run in (live, simulated, explored):
        scripted = Scripted(SCRIPTS[script], HOSTS[host])
        reporting = run(scripted)
        logs.append(scripted.log)
        counts.append((reporting.batches_begun, reporting.batches_done, reporting.on, reporting.driving))
    assert logs[0][:2] == ["start", f"rest, {SCRIPTS[script][0]}"]
    assert logs[0] == logs[1] == logs[2]
    assert counts[0] == counts[1] == counts[2]
    begun, done, on, driving = counts[0]
    assert begun == done >= 1
    assert on
    assert not driving
