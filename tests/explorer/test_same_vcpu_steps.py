"""One vCPU's loop for every machine: at the same stops the live, simulated and explored ones do the same about it."""

import threading
from collections.abc import Callable, Generator
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from pagetide.explorer.machine import ExploredMachine
from pagetide.explorer.scenarios import SCENARIOS
from pagetide.explorer.source import UNTIL, ExploredError
from pagetide.explorer.vcpu import Vcpu
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import FALSE_OOMS, WAITS_HOST, WAKE, vcpu_base
from pagetide.guest.reporting.designs.off import Off
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.vcpu import DONE, HOST_WANTED, NO_MEMORY, WORKER_WANTED
from pagetide.guest.vcpu_loop import OutOfMemoryError, Surroundings
from pagetide.machine.costs import read_costs
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.live.vcpu_thread import VcpuThread
from pagetide.machine.simulated import guest as simulated_guest
from pagetide.machine.simulated.guest import SimulatedGuest
from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop, Task
from pagetide.machine.simulated.process import Processors
from pagetide.machine.simulated.vcpu import TIME_UP
from pagetide.machine.simulated.vcpu_layout import CLOCK_PS, COSTS, CURSOR, END, NEXT_PS, SHARED_WORDS, WHO
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.memory.metadata import MetadataFile
from pagetide.units import PAGE_SIZE_BYTES
from tests.explorer.pausing import Pausing
from tests.machine.linux.eat_and_free import eat_and_free


class Stop(NamedTuple):
    """One stop of the vCPU.

    Attributes:
        outcome: why it stopped.
        wakes: whether the free path asked for the worker.
        out: pages that the host has then, which come back once somebody waits for them.
        relief: pages that the balloon gives.
    """

    outcome: int
    wakes: bool = False
    out: int = 0
    relief: int = 0


FAILS = Stop(NO_MEMORY)

SCRIPTS: dict[str, tuple[bool, list[Stop], list[str]]] = {
    "nobody is wanted": (True, [Stop(DONE)], ["run"]),
    "the worker is wanted": (True, [Stop(WORKER_WANTED, wakes=True), Stop(DONE)], ["run", "wake", "run"]),
    "it stops though nobody is wanted": (True, [Stop(WORKER_WANTED), Stop(DONE)], ["run", "run"]),
    "the host is wanted": (
        True,
        [Stop(HOST_WANTED), Stop(HOST_WANTED, wakes=True)],
        ["run", "report", "run", "wake", "report"],
    ),
    "it waits for what is out": (
        True,
        [FAILS._replace(out=1), FAILS._replace(out=4, wakes=True), Stop(DONE)],
        ["run", "relieve 2", "run", "wake", "relieve 2", "run"],
    ),
    "nobody waits": (
        False,
        [FAILS._replace(out=4), FAILS._replace(out=8, wakes=True)],
        ["run", "relieve 2", "give up", "run", "wake", "relieve 2", "give up"],
    ),
    "too little is out": (False, [FAILS._replace(out=3), Stop(DONE)], ["run", "relieve 2", "run"]),
    "the balloon gives": (
        True,
        [FAILS._replace(relief=256), FAILS._replace(relief=1, out=8), FAILS._replace(out=1)],
        ["run", "relieve 2", "run", "relieve 2", "run", "relieve 2"],
    ),
    "memory has run out": (True, [Stop(DONE), FAILS, Stop(DONE)], ["run", "run", "relieve 2", "out of memory"]),
    "it has run out where nobody waits": (False, [FAILS, Stop(DONE)], ["run", "relieve 2", "out of memory"]),
}
"""Whether who fails waits, where the vCPU stops, and what it does about it."""


class Scripted:
    """A vCPU's operations, what of memory is out, and the balloon, all in one; it writes down what is asked."""

    look_again_s: ClassVar[float] = float("inf")
    at_rest = True
    order = 2
    due_s = 0.0
    behind_s = 0.0

    def __init__(self, stops: list[Stop]) -> None:
        self.log: list[str] = []
        self.words: Any = None
        self._stops = [*stops]
        self._now = Stop(DONE)
        self._ended, self._looks = 0, 0

    def begin_stretch(self, number: int, from_s: float) -> None:
        pass

    @property
    def left(self) -> int:
        return len(self._stops)

    def run_due(self, now_s: float) -> int:
        self.log.append("run")
        self._now, self._looks = self._stops.pop(0), 0
        self.words[WAKE] = int(self._now.wakes)
        return self._now.outcome

    def give_up(self) -> None:
        self.log.append("give up")

    def wake(self) -> None:
        self.log.append("wake")

    def deflate_on_oom(self, order: int) -> int:
        self.log.append(f"relieve {order}")
        return self._now.relief

    @property
    def begun(self) -> int:
        """The first that is asked of memory after an allocation failed."""
        self._looks = 1
        return self._ended + (self._now.out > 0)

    @property
    def ended(self) -> int:
        """What is out is back at the second look from then on: that is the waiting vCPU's."""
        if self._looks and self._now.out:
            self._looks += 1
            if self._looks > 2:
                self._ended += 1
                self._now = self._now._replace(out=0)
        return self._ended

    @property
    def pages_out(self) -> int:
        return self._now.out


def live(scripted: Scripted, waits: bool) -> tuple[int, int]:
    """Run it as a thread does."""

    class Worker(GuestWorker):
        def wake(self) -> None:
            scripted.wake()

        def report_from_vcpu(self) -> None:
            scripted.log.append("report")

    zone = Zone(1024)
    scripted.words = zone.words
    with Worker(Off(zone, ReportingSettings()), None, None) as worker:
        guest = Surroundings(zone, worker, scripted, waits, scripted)
        vcpu = VcpuThread(0, guest, worker, scripted, threading.Event())  # type: ignore[arg-type]
        try:
            vcpu.run_stretch(0, 0.0, lambda: 0.0)
        except OutOfMemoryError:
            scripted.log.append("out of memory")
    return int(zone.words[FALSE_OOMS]), int(zone.words[vcpu_base(0) + WAITS_HOST])


def simulated(scripted: Scripted, waits: bool) -> tuple[int, int]:
    """Run it in virtual time, with the script instead of the kernel."""
    loop, zone, shared = Loop(), Zone(1024), np.zeros(SHARED_WORDS, np.int64)
    scripted.words = zone.words
    processors = Processors(2)

    class Worker(SimulatedWorker):
        def wake(self) -> None:
            scripted.wake()

        def report_from_vcpu(self) -> Task:
            scripted.log.append("report")
            yield from loop.sleep(1)

    design = Off(zone, ReportingSettings())
    worker = Worker(loop, zone, design, None, Doorbell(loop), read_costs(), shared, processors)
    guest = SimulatedGuest(
        loop, Surroundings(zone, worker, scripted, waits, scripted), MetadataFile(1024 * PAGE_SIZE_BYTES),
        eat_and_free(1, 0, settle=False), worker, lambda _: None, np.zeros((1, COSTS), np.int64), shared, processors,
    )  # fmt: skip
    guest._steps[0].next_operation = scripted

    def run(*arguments: Any) -> int:
        rows = arguments[3]
        shared[NEXT_PS] = NEVER_PS
        if rows[0, CLOCK_PS] >= NEVER_PS or rows[0, CURSOR] > rows[0, END]:
            return TIME_UP
        shared[WHO] = 0
        outcome = scripted.run_due(0.0) if scripted.left else DONE
        if not scripted.left and outcome == DONE:
            rows[0, CURSOR] = rows[0, END] + 1
        return outcome

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(simulated_guest, "run_vcpus", run)
        try:
            loop.resume(guest.run())
            while not guest.over:
                if guest.goes_on_ps >= loop.next_ps or not guest.advance(loop.next_ps):
                    loop.step()
        except OutOfMemoryError:
            scripted.log.append("out of memory")
    return int(zone.words[FALSE_OOMS]), int(zone.words[vcpu_base(0) + WAITS_HOST])


@cache
def _machine() -> ExploredMachine:
    return ExploredMachine("sync", SCENARIOS["start"])


def explored(scripted: Scripted, waits: bool) -> tuple[int, int]:
    """Run it as an actor, one stretch after the other; reports are left to their own test."""
    machine = _machine()
    scripted.words = machine.words
    machine.words[FALSE_OOMS] = 0
    actor, pausing, waited = (
        Vcpu(machine, 0, machine.vcpus[0].operations),
        Pausing(scripted, ("run_due", "wake", "deflate_on_oom")),
        0,
    )
    surroundings = machine.surroundings._replace(
        reporting=pausing, in_flight=pausing, waits_before_oom=waits, relief=pausing
    )
    actor.loop = machine._vcpu_loop(0, surroundings, pausing)
    stretch: str | None = actor.first
    try:
        while stretch is not None:
            waited += stretch == "next_turn" or (waits and stretch == "wait_memory")
            if stretch == "next_turn":
                scripted.log.append("report")
                stretch = actor.then
            else:
                stretch = _ended(actor.stretch(stretch))
    except ExploredError as error:
        scripted.log.append("out of memory" if "nothing is out" in str(error) else str(error))
    return machine.words[FALSE_OOMS], waited


def _ended(stretch: Generator[Any, Any, str | None]) -> str | None:
    """Run a stretch, which may wait for nobody."""
    try:
        while True:
            pause = next(stretch)
            assert pause.kind != UNTIL or pause.ready(), "it waits for what never comes"
    except StopIteration as end:
        following: str | None = end.value
        return following


@pytest.mark.parametrize("run", [live, simulated, explored])
@pytest.mark.parametrize("script", SCRIPTS)
def test_all_machines_do_the_same_at_a_stop(script: str, run: Callable[[Scripted, bool], tuple[int, int]]) -> None:
    """Whom a vCPU wakes, when it reports, is relieved, waits, goes on without a block or runs out: the same in each."""
    waits, stops, expected = SCRIPTS[script]
    scripted = Scripted(stops)
    false_ooms, waits_host = run(scripted, waits)
    assert scripted.log == expected
    assert false_ooms == expected.count("give up")
    failed_for_good = expected.count("out of memory")
    unrelieved = sum(stop.outcome == NO_MEMORY and not stop.relief for stop in stops) - failed_for_good
    assert waits_host == expected.count("report") + (unrelieved if waits else 0)
