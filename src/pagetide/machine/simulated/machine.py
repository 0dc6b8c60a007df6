"""The simulated machine: a guest and a host in one process, in virtual time, on memory that is metadata.

The zone, the design, the driver, the ring and the device are those of the live machine. What differs is time: costs
(costs.py) move a clock (loop.py), vCPUs run in one kernel up to the next event (vcpu.py), the
worker (worker.py) and the host (host.py) are tasks that wait in virtual time. The same settings
and costs give the same result to the byte.
"""

import logging

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone import TICKS_PER_S, Zone
from pagetide.guest.vcpu_loop import OutOfMemoryError, Surroundings
from pagetide.host.memory.ledger import Ledger
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import PS_PER_S, Costs
from pagetide.machine.faults import Fault, of_kind
from pagetide.machine.guest_view import ArenaView
from pagetide.machine.messages import ClockStarted, PhaseBegan, PhaseEnded
from pagetide.machine.observer import SAMPLE_INTERVAL_S, Observer
from pagetide.machine.recorder import Recorder
from pagetide.machine.result import RunResult
from pagetide.machine.simulated.guest import SimulatedGuest
from pagetide.machine.simulated.host import SimulatedHost
from pagetide.machine.simulated.loop import NEVER_PS, Loop, Signal, Task
from pagetide.machine.simulated.memory_need import check_memory, ran_out
from pagetide.machine.simulated.parts import Ground, make_parts
from pagetide.machine.simulated.process import Processors, SimulatedProcess
from pagetide.machine.simulated.ram import SimulatedRam
from pagetide.machine.simulated.vcpu_layout import (
    BLOCK_PS,
    CHECK_PS,
    COSTS,
    HUGE_FAULT_PS,
    MOVED_PAGE_PS,
    ORDER0_PS,
    SHARED_WORDS,
    SMALL_FAULT_PS,
    STAMP_PS,
)
from pagetide.machine.simulated.worker import SimulatedWorker
from pagetide.machine.workloads import has_migratetypes, make_work
from pagetide.memory.metadata import REPEATED_PAGES
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.stream import Work

_SAMPLES_QUIET = 20_000
_CHANGE_PARTS = 500

_log = logging.getLogger(__name__)


class SimulatedMachine:
    """One run of a guest and its host in virtual time.

    Attributes:
        operations: how many operations the vCPUs have run.
    """

    operations: int

    def __init__(self, config: RunConfig, costs: Costs, *, work: Work | None = None) -> None:
        """Take everything that a run is made of.

        Args:
            config: the settings, which the caller has checked.
            costs: what things cost.
            work: what the guest does; None is what the settings ask for.

        Raises:
            ConfigError: there are no costs of this backing, or this cannot be simulated, or not in this much memory.
        """
        check_simulated(config)
        check_memory(config)
        self._config, self._costs = config, costs
        self._backing = costs.backing(config.backing)
        if config.design == "shared":
            costs.of_taking()
        self._work = make_work(config) if work is None else work
        self._loop = Loop()
        self.operations = 0

    def run(self, observer: Observer) -> RunResult:
        """Run the workload to its end, to a failure or to Ctrl-C, and say what was measured.

        Raises:
            OSError: there is no room for so large a guest's addresses.
        """
        config = self._config
        ram = SimulatedRam(config.ram_bytes, huge=config.backing == "hugetmpfs")
        try:
            return self._run(ram, observer)
        finally:
            ram.close()

    def _run(self, ram: SimulatedRam, observer: Observer) -> RunResult:
        config, loop = self._config, self._loop
        ledger = Ledger()
        typed = has_migratetypes(config, self._work)
        pages = config.ram_bytes // PAGE_SIZE_BYTES
        zone = Zone(pages, vcpus=config.vcpus, pcp_max=config.pcp_max_pages, migratetypes=typed)
        happened = Signal(loop)
        holders = len(of_kind(config.parsed_faults, "mmlock", "mmlock-split"))
        processors = Processors(self._costs.cpus, holders)
        process = SimulatedProcess(loop, ram.file, self._backing, processors)
        host = SimulatedHost(loop, ram, ledger, self._costs, process, happened, verify_share=config.verify_share)
        shared = np.zeros(SHARED_WORDS, np.int64)
        parts = make_parts(
            Ground(config, loop, zone, ram, ledger, self._costs, processors, process, host, happened, shared)
        )  # fmt: skip
        worker = parts.worker
        recorder = Recorder(config, lambda: process.resident_bytes, ArenaView(config, zone.words), ledger)

        waiting = of_kind(config.parsed_faults, "stop", "slow", "off", "ring-full")

        def tell(message: PhaseBegan | PhaseEnded | ClockStarted) -> None:
            nonlocal waiting
            if isinstance(message, ClockStarted):
                due = tuple(fault for fault in waiting if fault.start_s <= message.until_s)
                waiting = tuple(fault for fault in waiting if fault not in due)
                for fault in due:
                    at_s = loop.now_s + max(0.0, fault.start_s - message.stream_s)
                    self._begin_fault(fault, at_s, worker, process)
                return
            if isinstance(message, PhaseBegan):
                observer.stage(message.name)
                recorder.phase_began(message)
            else:
                recorder.phase_ended(message)
            happened.notify()

        guest = SimulatedGuest(
            loop,
            Surroundings(zone, worker, parts.in_flight, config.oom == "wait", parts.relief),
            ram.file, self._work, worker, tell, self._vcpu_costs(), shared, processors,
        )  # fmt: skip
        recorder.begin({"host": 0.0, "guest": 0.0})
        tasks = [
            host.run(),
            worker.run(),
            guest.run(),
            *parts.tasks,
            _sampling(loop, recorder, observer, happened, self._work.end_s, config.ram_bytes),
        ]
        if config.keeps_clock:
            tasks.insert(0, _ticking(loop, zone))
        outcome = self._drive(guest, tasks)
        self.operations = guest.operations
        busy_s: dict[str, float | None] = {
            "host": process.busy_ps / PS_PER_S,
            "guest": (guest.busy_ps + worker.busy_ps) / PS_PER_S,
        }
        recorder.end(loop.now_s, busy_s)
        result = recorder.result(outcome)
        result.machine = "simulated"
        result.reporting_cpu_s = worker.busy_ps / PS_PER_S
        result.repeated_bytes = int(ram.file.words[REPEATED_PAGES]) * PAGE_SIZE_BYTES
        return result

    def _begin_fault(self, fault: Fault, at_s: float, worker: SimulatedWorker, process: SimulatedProcess) -> None:
        """The stream's clock will reach a fault of the settings at this time."""
        loop = self._loop
        if fault.kind in ("stop", "slow"):
            process.add_fault(fault._replace(start_s=at_s))
            return
        begin_ps, end_ps = (round(when_s * PS_PER_S) for when_s in (at_s, at_s + fault.for_s))
        loop.at(begin_ps, lambda: worker.set_fault(fault.kind, begins=True))
        loop.at(end_ps, lambda: worker.set_fault(fault.kind, begins=False))

    def _drive(self, guest: SimulatedGuest, tasks: list[Task]) -> str:
        """Let time pass until the guest is done; what became of it."""
        loop = self._loop
        try:
            for task in tasks:
                loop.resume(task)
            while not guest.over:
                next_ps = loop.next_ps
                if guest.goes_on_ps >= next_ps or not guest.advance(next_ps):
                    assert loop.next_ps < NEVER_PS, "nothing would ever happen again"
                    loop.step()
        except KeyboardInterrupt:
            return "interrupted"
        except OSError:  # who looks on cannot be told
            raise
        except OutOfMemoryError as error:
            return f"the guest stopped: {error}"
        except MemoryError:
            return ran_out(self._config)
        except Exception as error:
            _log.exception("a simulated run broke")
            what = str(error) or type(error).__name__
            return f"the simulation broke at {loop.now_s:.9f} s: {what}"
        return "complete"

    def _vcpu_costs(self) -> npt.NDArray[np.int64]:
        """A row for each number of vCPUs at work."""
        costs, backing = self._costs, self._backing
        small = costs.backing("memfd")  # what is part of a huge page comes in small ones
        rows = np.zeros((self._config.vcpus, COSTS), np.int64)
        for number, row in enumerate(rows):
            small_fault, fault = ((of.fault if number == 0 else of.fault_shared) for of in (small, backing))
            row[ORDER0_PS], row[MOVED_PAGE_PS], row[BLOCK_PS] = costs.order0.ps, costs.moved_page.ps, costs.block.ps
            row[STAMP_PS], row[CHECK_PS] = costs.stamp.ps, costs.check.ps
            row[SMALL_FAULT_PS], row[HUGE_FAULT_PS] = small_fault.ps, fault.ps
        return rows


def check_simulated(config: RunConfig) -> None:
    """Raise ConfigError for what only a live machine has."""
    if config.device != "pagetide":
        raise ConfigError(f"the simulated machine has our device only, and not {config.device}'s")


def _sampling(
    loop: Loop, recorder: Recorder, observer: Observer, happened: Signal, end_s: float, ram_bytes: int
) -> Task:
    """Look as often as a live machine does; in a run of hours only while something happens, and else seldom.

    Something happens when a phase begins or ends, when the host discards, and when what it holds changes by much.
    """
    shortest_ps = round(SAMPLE_INTERVAL_S * PS_PER_S)
    longest_ps = max(shortest_ps, round(end_s / _SAMPLES_QUIET * PS_PER_S))
    interval_ps, before_bytes = shortest_ps, 0
    while True:
        sample = recorder.sample(loop.now_s)
        if sample is not None:
            observer.sample(sample)
            if abs(sample.host_resident_bytes - before_bytes) * _CHANGE_PARTS > ram_bytes:
                interval_ps = shortest_ps
            before_bytes = sample.host_resident_bytes
        yield None, loop.now_ps + shortest_ps
        rest_ps = interval_ps - shortest_ps
        interval_ps = min(2 * interval_ps, longest_ps)
        if rest_ps > 0:
            until_ps = loop.now_ps + rest_ps
            yield happened, until_ps
            if loop.now_ps < until_ps:
                interval_ps = shortest_ps


def _ticking(loop: Loop, zone: Zone) -> Task:
    """Keep the zone's clock."""
    while True:
        zone.tick(loop.now_s)
        yield from loop.sleep(PS_PER_S // TICKS_PER_S)
