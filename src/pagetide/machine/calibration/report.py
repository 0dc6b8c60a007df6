"""Measures what a report costs on its way through a real driver, a real socket pair and a host in another process."""

import contextlib
import select
import socket
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.driver.link import VhostUserLink
from pagetide.guest.driver.reporting import BalloonDriver
from pagetide.guest.reporting.designs.scan import Scan
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.host.memory.ledger import LEDGER_WORDS, PUNCHES
from pagetide.linux import eventfd_read
from pagetide.machine.config import RunConfig
from pagetide.machine.live.processes import Child, shared_memory
from pagetide.machine.messages import HostSetup, Ready
from pagetide.memory.guest_ram import GuestRam
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES

_RAM_BYTES = 256 << 20
_BLOCKS = 32
_READY_MAX_S = 120.0
_CALL_MAX_S = 10.0
_EACH = 10


class ReportCosts(NamedTuple):
    """Nanoseconds, an entry a stretch in each list; the names are those of Costs."""

    report: list[float]
    report_block: list[float]
    element: list[float]
    element_block: list[float]
    wake: list[float]


class _Spent(NamedTuple):
    """What a report took: by the clock, of the guest's thread, of the host's process, and of that besides punching."""

    wall_ns: float
    guest_ns: float
    host_ns: float
    besides_ns: float


def measure_reports(stretches: int, punch_ns: float) -> ReportCosts:
    """Report blocks that are not resident, one at a time and 32 at a time, in so many stretches of each.

    Args:
        stretches: how many of each.
        punch_ns: what a discarding call costs that finds nothing, which counts apart.

    Raises:
        OSError: the processes or the memory could not be had.
    """
    found = ReportCosts([], [], [], [], [])
    with contextlib.ExitStack() as resources:
        guest = _Guest(resources, punch_ns)
        for blocks in (1, _BLOCKS):
            guest.spent(blocks)  # warms up
        for _ in range(stretches):
            one, many = guest.spent(1), guest.spent(_BLOCKS)
            report_block = (many.guest_ns - one.guest_ns) / (_BLOCKS - 1)
            element_block = (many.besides_ns - one.besides_ns) / (_BLOCKS - 1)
            found.report.append(one.guest_ns - report_block)
            found.report_block.append(report_block)
            found.element.append(one.besides_ns - element_block)
            found.element_block.append(element_block)
            found.wake.append((one.wall_ns - one.guest_ns - one.host_ns) / 2)
    return found


class _Guest:
    """A guest in this process, whose memory nobody touches, attached to a host in another."""

    def __init__(self, resources: contextlib.ExitStack, punch_ns: float) -> None:
        self._punch_ns = punch_ns
        ours, theirs = (resources.enter_context(end) for end in socket.socketpair())
        ledger_fd, ledger = shared_memory(resources, "ledger", LEDGER_WORDS * 8)
        self._ledger = np.frombuffer(ledger, np.int64, LEDGER_WORDS)
        fds = [theirs.fileno(), ledger_fd]
        self._host = Child("host", lambda control_fd: HostSetup(RunConfig(), control_fd, *fds), fds)
        resources.callback(self._host.close)
        theirs.close()
        self._await_ready()
        ram = resources.enter_context(GuestRam.create(_RAM_BYTES, "memfd"))
        link = resources.enter_context(VhostUserLink(ours, ram))
        self._zone = Zone(_RAM_BYTES // PAGE_SIZE_BYTES)
        self._driver = BalloonDriver(self._zone, ram.address, link, _BLOCKS)
        self._call_fd = link.call_fd
        self._design = Scan(self._zone, ReportingSettings(order=ORDER_MAX, delay_s=0.0, capacity=_BLOCKS))
        self._design.start(time.monotonic())
        self._report_all()

    def _await_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_MAX_S
        while time.monotonic() < deadline_s and not self._host.channel.closed:
            if select.select([self._host.channel], [], [], 1.0)[0] and any(
                isinstance(message, Ready) for message in self._host.channel.receive()
            ):
                return
        raise OSError(self._host.cause_of_death() or f"the host was not ready after {_READY_MAX_S:g} s")

    def _report_all(self) -> None:
        """What GuestWorker does, in this thread."""
        poller = select.poll()
        poller.register(self._call_fd, select.POLLIN)
        while (batch := self._design.next_batch(time.monotonic())) is not None:
            self._driver.submit(batch)
            while not self._driver.completed():
                if self._driver.arm():
                    continue
                if not poller.poll(_CALL_MAX_S * 1000):
                    raise OSError(f"the host did not answer a report within {_CALL_MAX_S:g} s")
                eventfd_read(self._call_fd)
            self._design.done(batch, True, time.monotonic())

    def spent(self, blocks: int) -> _Spent:
        """What a report of so many blocks takes, as the mean over a few."""
        wall_ns = guest_ns = 0
        host_ns, punches = _cpu_ns(self._host.process.pid), int(self._ledger[PUNCHES])
        for _ in range(_EACH):
            held = [self._zone.allocate(ORDER_MAX) for _ in range(blocks)]
            for pfn in held:
                assert pfn is not None
                self._zone.free(pfn, ORDER_MAX)
            self._design.woken(time.monotonic())
            start_ns, start_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            self._report_all()
            guest_ns += time.thread_time_ns() - start_cpu_ns
            wall_ns += time.perf_counter_ns() - start_ns
        host_ns = _cpu_ns(self._host.process.pid) - host_ns
        besides_ns = host_ns - (int(self._ledger[PUNCHES]) - punches) * self._punch_ns
        return _Spent(wall_ns / _EACH, guest_ns / _EACH, host_ns / _EACH, besides_ns / _EACH)


def _cpu_ns(pid: int) -> int:
    """CPU time of a process's first thread (`/proc/PID/schedstat`, Documentation/scheduler/sched-stats.rst)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
