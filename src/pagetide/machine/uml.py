"""The machine with a real guest: User-Mode Linux attached to our host's process over vhost-user.

The starting process directs: it tells the guest's init to fill, waits, tells it to remove, and looks on until the host
has got no report for longer than Linux takes between two passes. It samples as in `live.py`; host residency is read
from the guest's own memory file. What happens in the guest is stamped here, when its answer arrives.
"""

import contextlib
import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from pagetide.host.ledger import LEDGER_WORDS, REPORTS, Ledger
from pagetide.linux import process_cpu_s
from pagetide.machine.boot_config import LINUX_DELAY_S, BootConfig
from pagetide.machine.guest_view import GuestMemoryNow, GuestTotals
from pagetide.machine.messages import Ended, HostSetup, PhaseBegan, PhaseEnded, Ready, Stage
from pagetide.machine.observer import SAMPLE_INTERVAL_S, Observer
from pagetide.machine.packages import UmlParts
from pagetide.machine.processes import STOP_MAX_S, Child, shared_memory
from pagetide.machine.recorder import Recorder
from pagetide.machine.result import RunResult
from pagetide.machine.uml_guest import UmlGuest
from pagetide.memory.residency import resident_bytes

SETTLED_AFTER_S = LINUX_DELAY_S + 1.5
"""Without a report for this long, Linux has nothing left to report: its passes are one delay apart."""

_BOOT_MAX_S = 120.0
_ANSWER_MAX_S = 120.0


class _RunOverError(Exception):
    """The run cannot go on; the message is its outcome."""


class _LinuxView:
    """What a Linux guest tells of itself."""

    def __init__(self, ram_bytes: int) -> None:
        self._ram_bytes = ram_bytes
        self.free_bytes = 0

    def memory(self) -> GuestMemoryNow:
        """MemFree as last told. Blocks that are isolated for reporting are not in it, so they count as used."""
        return GuestMemoryNow(self._ram_bytes - self.free_bytes, self.free_bytes, None)

    def totals(self) -> GuestTotals:
        """Nothing of that is told."""
        return GuestTotals()


class UmlMachine:
    """One run of a User-Mode Linux guest and its host."""

    def __init__(self, config: BootConfig, parts: UmlParts) -> None:
        """Take the settings, which the caller has checked, and the guest's files."""
        self._config, self._parts = config, parts
        self._view = _LinuxView(config.ram_bytes)
        self._answers: list[str] = []
        self._order: int | None = None
        self._next_s = 0.0
        self._memory_fd = -1

    def run(self, observer: Observer) -> RunResult:
        """Boot, run the workload to its end, to a failure or to Ctrl-C, and say what was measured.

        Raises:
            GuestRamError: the guest's memory could not be had.
            OSError: the guest or the host could not be started, or the guest ended before it attached.
        """
        with contextlib.ExitStack() as resources:
            self._observer = observer
            ledger_fd, ledger = shared_memory(resources, "ledger", LEDGER_WORDS * 8)
            self._ledger = Ledger(np.frombuffer(ledger, np.int64, LEDGER_WORDS))
            self._recorder = Recorder(
                self._config.run_config(), lambda: resident_bytes(self._memory_fd), self._view, ledger
            )
            outcome = _outcome(lambda: self._start(resources, ledger_fd))
            if outcome == "complete":
                outcome = _outcome(self._bursts)
                self._end(outcome)
            return self._result(outcome)

    def _start(self, resources: contextlib.ExitStack, ledger_fd: int) -> None:
        """Boot the guest, start the host once the guest has connected, and wait until both are ready."""
        self._observer.stage(f"booting Linux {self._parts.release} (User-Mode Linux)")
        folder = Path(tempfile.mkdtemp(prefix="pagetide-uml-"))
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "balloon"))
            listener.listen(1)
            self._guest = UmlGuest(self._parts, self._config, folder, folder / "balloon")
            resources.callback(self._guest.stop)
            connection = resources.enter_context(self._accept(listener))
        self._memory_fd = self._guest.open_memory(self._config.ram_bytes)
        resources.callback(os.close, self._memory_fd)
        host_control, host_end = (resources.enter_context(end) for end in socket.socketpair())
        setup = HostSetup(self._config.run_config(), host_control.fileno(), connection.fileno(), ledger_fd)
        self._host = Child("host", setup, [setup.control_fd, setup.socket_fd, ledger_fd], host_end)
        resources.callback(self._host.close)
        # Whoever is left must see the other's end close.
        connection.close()
        host_control.close()
        self._poller = select.poll()
        for fd in (self._guest.fileno(), self._guest.pidfd, self._host.channel.fileno()):
            self._poller.register(fd, select.POLLIN)
        self._look_on(lambda: self._host.ready and self._order is not None, _BOOT_MAX_S, "booting")
        self._recorder.begin({"guest": process_cpu_s(self._guest.pid), "host": process_cpu_s(self._host.process.pid)})

    def _accept(self, listener: socket.socket) -> socket.socket:
        """Wait for the guest's connection."""
        deadline_s = time.monotonic() + _BOOT_MAX_S
        while time.monotonic() < deadline_s:
            ready = select.select([listener.fileno(), self._guest.fileno(), self._guest.pidfd], [], [], 1.0)[0]
            if listener.fileno() in ready:
                return listener.accept()[0]
            if self._guest.fileno() in ready:
                self._guest.markers()
            if self._guest.pidfd in ready:
                raise ChildProcessError(f"before it attached to the balloon, {self._guest.cause_of_death()}")
        raise TimeoutError(f"the guest did not attach to the balloon within {_BOOT_MAX_S:g} s")

    def _bursts(self) -> None:
        """Fill, hold, remove and wait until all is reported, some times over; then switch the guest off."""
        config = self._config
        for burst in range(config.bursts):
            name = f"burst {burst + 1} of {config.bursts}"
            self._phase(f"{name}: eating", burst, f"fill {config.fill_bytes >> 20}", "filled")
            held_until_s = time.monotonic() + config.hold_s
            self._look_on(lambda until_s=held_until_s: time.monotonic() >= until_s)  # type: ignore[misc]
            self._phase(f"{name}: freed, reporting", burst, "remove", "removed")
            self._await_quiet()

    def _phase(self, name: str, burst: int, command: str, answer: str) -> None:
        eats = answer == "filled"
        self._observer.stage(name)
        self._recorder.phase_began(PhaseBegan(name, burst, eats, time.monotonic()))
        self._answers.clear()
        self._guest.say(command)
        self._look_on(lambda: answer in self._answers, _ANSWER_MAX_S, command)
        allocated_bytes = self._config.fill_bytes if eats else 0
        self._recorder.phase_ended(PhaseEnded(burst, eats, allocated_bytes, time.monotonic()))

    def _await_quiet(self) -> None:
        """Look on until no report has come for SETTLED_AFTER_S."""
        reports, since_s = -1, 0.0

        def quiet() -> bool:
            nonlocal reports, since_s
            now_s = time.monotonic()
            if self._ledger.words[REPORTS] != reports:
                reports, since_s = int(self._ledger.words[REPORTS]), now_s
            return now_s - since_s >= SETTLED_AFTER_S

        self._look_on(quiet)

    def _look_on(self, until: Callable[[], bool], limit_s: float = float("inf"), doing: str = "") -> None:
        """Take what comes and sample, until this is so."""
        deadline_s = time.monotonic() + limit_s
        while not until():
            wait_s = max(0.0, self._next_s - time.monotonic())
            ready = {fd for fd, _ in self._poller.poll(wait_s * 1000)}
            if self._guest.fileno() in ready:
                for marker in self._guest.markers():
                    self._take(marker)
            if self._host.channel.fileno() in ready:
                self._hear_host()
            if self._host.channel.closed or self._guest.pidfd in ready:
                raise _RunOverError(self._how_it_ended())
            now_s = time.monotonic()
            if now_s >= self._next_s:
                self._next_s = max(self._next_s + SAMPLE_INTERVAL_S, now_s)
                sample = self._recorder.sample(now_s)
                if sample is not None:
                    self._observer.sample(sample)
            if now_s >= deadline_s:
                raise _RunOverError(f"the guest was not done with {doing} after {limit_s:g} s")

    def _take(self, marker: str) -> None:
        kind, _, rest = marker.partition(" ")
        if kind == "free":
            self._view.free_bytes = int(rest) << 10
        elif kind == "ready":
            self._order = int(rest.split()[1])
        elif kind == "failed":
            raise _RunOverError(f"the guest stopped: {rest}")
        else:
            self._answers.append(kind)

    def _hear_host(self) -> None:
        for message in self._host.channel.receive():
            if isinstance(message, Stage):
                self._observer.stage(message.text)
            elif isinstance(message, Ready):
                self._host.ready = True
            elif isinstance(message, Ended):
                self._host.ended = message

    def _how_it_ended(self) -> str:
        """One of the two ended in the middle: which, and how."""
        if self._guest.await_end(0):
            cause = self._guest.cause_of_death()
            self._guest.stop()  # its helpers hold the connection as well
            noticed = self._host.await_end(time.monotonic() + STOP_MAX_S)
            return f"{cause}; the host {'noticed and ended' if noticed else 'was stopped'}"
        self._host.await_end(time.monotonic() + STOP_MAX_S)
        return f"{self._host.cause_of_death() or 'the host ended without a word'}; the guest was stopped"

    def _end(self, outcome: str) -> None:
        """Note CPU time, then let the guest and the host go."""
        end_s = time.monotonic()
        guest_cpu_s = process_cpu_s(self._guest.pid)
        if outcome == "complete":
            self._guest.say("stop")
            self._guest.await_end(time.monotonic() + STOP_MAX_S)
        self._guest.stop()
        self._host.stop()
        host_cpu_s = None if self._host.ended is None else self._host.ended.cpu_s
        self._recorder.end(end_s, {"guest": guest_cpu_s, "host": host_cpu_s})

    def _result(self, outcome: str) -> RunResult:
        result = self._recorder.result(outcome)
        order = result.config.order if self._order is None else self._order
        return msgspec.structs.replace(
            result,
            config=msgspec.structs.replace(result.config, order=order),
            guest=f"Linux {self._parts.release} (User-Mode Linux)",
        )


def _outcome(part: Callable[[], None]) -> str:
    """Do a part of the run; what became of it."""
    try:
        part()
    except _RunOverError as over:
        return str(over)
    except KeyboardInterrupt:
        return "interrupted"
    return "complete"
