"""The live machine: a guest and a host in two processes, on real memory, in real time.

The starting process makes everything that outlives one of the two: the guest's RAM, the zone's arena, the host's
ledger (memory files) and the vhost-user connection (a socket pair, so no path is left behind by anyone). Then it only
looks on: it samples the arena, the ledger and the RAM's residency, none of which needs the children's help, so a run
that breaks off still tells what was measured. It loads no compiler.

With `device="qemu"` the host is a stock QEMU: RAM is its memory file, and what it did is not told by a ledger but only
seen in that file.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable

import numpy as np

from pagetide.guest.allocator.zone_layout import arena_bytes
from pagetide.host.memory.ledger import LEDGER_WORDS, Ledger
from pagetide.machine.config import RunConfig
from pagetide.machine.faults import of_kind
from pagetide.machine.guest_view import ArenaView
from pagetide.machine.live.fault_player import FaultPlayer, SignalledProcess
from pagetide.machine.live.processes import STOP_MAX_S, Child, shared_memory
from pagetide.machine.messages import (
    ClockStarted,
    Command,
    Ended,
    GuestSetup,
    HostSetup,
    Message,
    PhaseBegan,
    PhaseEnded,
    Ready,
    Stage,
)
from pagetide.machine.observer import SAMPLE_INTERVAL_S, Observer
from pagetide.machine.qemu.process import QemuProcess
from pagetide.machine.recorder import Recorder
from pagetide.machine.result import RunResult
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.residency import resident_bytes
from pagetide.processes import process_cpu_s
from pagetide.units import PAGE_SIZE_BYTES

_READY_MAX_S = 120.0


class LiveMachine:
    """One run of a guest and its host."""

    def __init__(self, config: RunConfig) -> None:
        """Take the settings, which the caller has checked."""
        self._config = config
        self._children: list[Child] = []  # the host, if it is ours, and the guest last
        self._host_cpu_s: Callable[[], float | None] = lambda: None
        self._started = False
        self._end_s: float | None = None  # when the first of them ended

    def run(self, observer: Observer) -> RunResult:
        """Run the workload to its end, to a failure or to Ctrl-C, and say what was measured.

        Raises:
            GuestRamError: the memory could not be had.
            OSError: the processes could not be had (QemuError says what to install).
        """
        with contextlib.ExitStack() as resources:
            self._prepare(resources, observer)
            try:
                outcome = self._watch(observer)
            except KeyboardInterrupt:
                outcome = "interrupted"
            end_s = time.monotonic() if self._end_s is None else self._end_s
            self._faults.close()
            outcome = (self._faults.failure or outcome) if outcome == "complete" else outcome
            for child in reversed(self._children):  # the guest first: it uses the host
                child.stop()
            cpu_s = {child.name: None if child.ended is None else child.ended.cpu_s for child in self._children}
            self._recorder.end(end_s, {"host": self._host_cpu_s()} | cpu_s)
            result = self._recorder.result(outcome)
            guest = self._children[-1]
            result.reporting_cpu_s = None if guest.ended is None else guest.ended.reporting_cpu_s
            return result

    def _prepare(self, resources: contextlib.ExitStack, observer: Observer) -> None:
        config = self._config
        arena_fd, arena = shared_memory(
            resources, "arena", arena_bytes(config.ram_bytes // PAGE_SIZE_BYTES, config.vcpus, config.pcp_max_pages)
        )
        ledger: Ledger | None = None
        qemu_pid = None
        if config.device == "qemu":
            observer.stage("starting QEMU and the guest")
            qemu = resources.enter_context(QemuProcess(config.ram_bytes))
            ram_fd, device_socket, qemu_pid = qemu.ram_fd, qemu.qtest, qemu.pid
            self._host_cpu_s = lambda: process_cpu_s(qemu.pid)
            host_process = SignalledProcess(lambda signal: os.kill(qemu.pid, signal))
        else:
            observer.stage("starting the host and the guest")
            ram_fd = resources.enter_context(GuestRam.create(config.ram_bytes, config.backing)).fd
            ledger_fd, ledger_memory = shared_memory(resources, "ledger", LEDGER_WORDS * 8)
            ledger = Ledger(np.frombuffer(ledger_memory, np.int64, LEDGER_WORDS))
            device_socket, host_socket = (resources.enter_context(end) for end in socket.socketpair())
            host_fds = [host_socket.fileno(), ledger_fd]
            also = {
                "shared": {"ram_fd": ram_fd, "arena_fd": arena_fd},
                "balloon": {"arena_fd": arena_fd},
            }.get(config.design, {})
            host = Child(
                "host",
                lambda control_fd: HostSetup(config, control_fd, *host_fds, **also),
                [*host_fds, *also.values()],
            )
            self._children.append(resources.enter_context(contextlib.closing(host)))
            host_socket.close()  # the guest must see the host's end close
            host_process = SignalledProcess(host.process.send_signal)
        guest = Child(
            "guest",
            lambda control_fd: GuestSetup(
                config, control_fd, device_socket.fileno(), ram_fd, arena_fd, qemu_pid=qemu_pid
            ),
            [device_socket.fileno(), ram_fd, arena_fd],
        )
        self._children.append(resources.enter_context(contextlib.closing(guest)))
        device_socket.close()
        faults = of_kind(config.parsed_faults, "stop", "slow")
        self._faults = resources.enter_context(FaultPlayer(faults, host_process.begin, host_process.end))
        self._recorder = Recorder(config, lambda: resident_bytes(ram_fd), ArenaView(config, arena), ledger)

    def _watch(self, observer: Observer) -> str:
        """Look on until the guest is done; what became of it."""
        poller = select.poll()
        for child in self._children:
            poller.register(child.channel.fileno(), select.POLLIN)
        give_up_s = time.monotonic() + _READY_MAX_S
        next_s = time.monotonic()
        while True:
            ready = {fd for fd, _ in poller.poll(max(0.0, next_s - time.monotonic()) * 1000)}
            for child in self._children:
                if child.channel.fileno() in ready:
                    for message in child.channel.receive():
                        self._take(child, message, observer)
                    if child.channel.closed:
                        self._sample(observer)  # this process may not have run since the last one
                        self._end_s = time.monotonic()
                        self._faults.close()
                        return self._how_it_ended()
            if self._faults.failure is not None:
                return self._faults.failure
            if time.monotonic() >= next_s:
                next_s = max(next_s + SAMPLE_INTERVAL_S, time.monotonic())
                self._sample(observer)
            if not self._started and time.monotonic() > give_up_s:
                return f"the guest and the host were not ready after {_READY_MAX_S:g} s"

    def _sample(self, observer: Observer) -> None:
        sample = self._recorder.sample(time.monotonic())
        if sample is not None:
            observer.sample(sample)

    def _start(self) -> None:
        """Both are ready: begin."""
        self._started = True
        cpu_s = {child.name: process_cpu_s(child.process.pid) for child in self._children}
        self._recorder.begin({"host": self._host_cpu_s()} | cpu_s)
        for child in self._children:
            child.channel.send(Command("start"))

    def _take(self, child: Child, message: Message, observer: Observer) -> None:
        if isinstance(message, Stage):
            observer.stage(message.text)
        elif isinstance(message, Ready):
            child.ready = True
            if all(child.ready for child in self._children):
                self._start()
        elif isinstance(message, ClockStarted):
            self._faults.clock_started(message)
        elif isinstance(message, PhaseBegan):
            observer.stage(message.name)
            self._recorder.phase_began(message)
        elif isinstance(message, PhaseEnded):
            self._recorder.phase_ended(message)
        elif isinstance(message, Ended):
            child.ended = message

    def _how_it_ended(self) -> str:
        """One of them ended: either the guest was done, or something went wrong, and the other one noticed."""
        guest = self._children[-1]
        deadline_s = time.monotonic() + STOP_MAX_S
        noticed = {child: child.await_end(deadline_s) for child in reversed(self._children)}
        causes = {child: cause for child in self._children if (cause := child.cause_of_death()) is not None}
        if not causes:
            return "complete" if guest.ended is not None else "the guest ended without a word"
        # Who was killed is the cause, and not what the other one says of it.
        first = min(causes, key=lambda child: child.process.poll() or 0)
        others = [
            f"; the {child.name} {'noticed and ended' if ended else 'was stopped'}"
            for child, ended in noticed.items()
            if child is not first
        ]
        return causes[first] + "".join(others)
