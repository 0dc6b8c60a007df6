"""The machine with a real Linux guest, whatever runs it and whoever serves its balloon.

The starting process directs: it tells the guest's init to fill, waits, tells it to remove, and looks on until nothing
more comes back. It samples as `machine/live/machine.py` does; host residency is read from the guest's own memory file.
What happens in the guest is stamped here, when its answer arrives.
"""

import contextlib
import errno
import os
import select
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pagetide.host.memory.ledger import REPORTS
from pagetide.machine.linux.attendant import Attendant, GuestFiles
from pagetide.machine.linux.balloon_host import BOOT_MAX_S, BalloonHost
from pagetide.machine.linux.boot_config import LINUX_DELAY_S, BootConfig
from pagetide.machine.linux.guest import Hypervisor, LinuxGuest
from pagetide.machine.linux.view import KernelTold, LinuxView
from pagetide.machine.live.processes import STOP_MAX_S
from pagetide.machine.messages import PhaseBegan, PhaseEnded
from pagetide.machine.observer import SAMPLE_INTERVAL_S, Observer
from pagetide.machine.recorder import Recorder
from pagetide.machine.result import RunResult
from pagetide.memory.residency import resident_bytes
from pagetide.processes import process_cpu_s
from pagetide.units import PAGE_SIZE_BYTES, format_size

SETTLED_AFTER_S = LINUX_DELAY_S + 1.5
"""Without a report for this long, Linux has nothing left to report: its passes are one delay apart."""

HELD_AFTER_S = 3.5 * LINUX_DELAY_S
"""When residency has not fallen for this long, three passes have brought nothing: the rest will not come back."""

TRICKLE_SHARE = 1 / 512
"""Less than this share of RAM is no fall of residency worth waiting for."""

_ANSWER_MAX_S = 300.0

_TEND_MAX_S = 400.0
"""Single pages come back at Linux's pace, a sixteenth of them a pass."""


class _RunOverError(Exception):
    """The run cannot go on; the message is its outcome."""


class Quiet:
    """Finds out that a guest has given back what it had to give.

    No report for a while is the quick sign, but there may be no account of reports, and at small orders a guest that is
    looked at may never stop: init's own small allocations split a reported block, and what is left of it is reported
    again in every pass. Left alone it comes to rest.
    """

    def __init__(self, trickle_bytes: int) -> None:
        """Take by how much residency may fall without being taken for more to come."""
        self._trickle_bytes = trickle_bytes
        self._report = (0.0, -1)
        self._fall: tuple[float, int] | None = None

    def by(self, now_s: float, reports: int | None, resident_bytes: int) -> bool:
        """Whether it is so, at this time, with this many reports so far (None is not known) and this much resident."""
        if self._fall is None or resident_bytes < self._fall[1] - self._trickle_bytes:
            self._fall = now_s, resident_bytes
        if reports is not None and reports != self._report[1]:
            self._report = now_s, reports
        silent = reports is not None and now_s - self._report[0] >= SETTLED_AFTER_S
        return silent or now_s - self._fall[0] >= HELD_AFTER_S


class LinuxMachine:
    """One run of a real Linux guest and its host."""

    def __init__(
        self, config: BootConfig, hypervisor: Hypervisor, host: BalloonHost, attendant: Attendant | None = None
    ) -> None:
        """Take the settings, which the caller has checked.

        Args:
            config: the settings.
            hypervisor: what runs the guest.
            host: who serves its balloon.
            attendant: who looks into the guest's kernel meanwhile.
        """
        self._config, self._hypervisor, self._host = config, hypervisor, host
        self._attendant = attendant
        self._lines: list[str] = []
        self._view = LinuxView(config.ram_bytes)
        self._answers: list[str] = []
        self._kernel: KernelTold | None = None
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
            self._folder = Path(tempfile.mkdtemp(prefix="pagetide-guest-"))
            resources.callback(shutil.rmtree, self._folder, ignore_errors=True)
            balloon = self._host.listen(resources, self._folder, observer)
            config = msgspec.structs.replace(
                self._config.run_config(),
                verify_share=self._host.verify_share,
                device="qemu" if self._hypervisor.is_balloon else "pagetide",
            )
            self._recorder = Recorder(config, lambda: resident_bytes(self._memory_fd), self._view, self._host.ledger)
            outcome = _outcome(lambda: self._start(resources, balloon))
            if outcome == "complete":
                outcome = _outcome(self._attended_bursts)
                self._end(outcome)
            return self._result(outcome)

    def _start(self, resources: contextlib.ExitStack, balloon: Path | None) -> None:
        """Boot the guest, have it served, and wait until it and the host are ready."""
        self._observer.stage(f"booting {self._title()}")
        self._guest = LinuxGuest(self._hypervisor, self._config, self._folder, balloon)
        resources.callback(self._guest.stop)
        self._host.attach(resources, self._guest)
        self._poller = select.poll()
        for fd in (self._guest.fileno(), self._guest.pidfd, self._host.fileno()):
            if fd is not None:
                self._poller.register(fd, select.POLLIN)
        self._look_on(self._is_ready, BOOT_MAX_S, "booting")
        self._memory_fd = self._guest.open_memory(self._config.ram_bytes)
        resources.callback(os.close, self._memory_fd)
        self._recorder.begin({"guest": process_cpu_s(self._guest.pid), "host": self._host.cpu_s()})

    def _is_ready(self) -> bool:
        return self._host.ready and self._kernel is not None and self._view.free_bytes > 0

    def _attended_bursts(self) -> None:
        """The bursts, and before and after them whatever the attendant does."""
        if self._attendant is None:
            return self._bursts()
        files = GuestFiles(self._ask, self._folder, lambda until, doing: self._look_on(until, _ANSWER_MAX_S, doing))
        with self._attendant.attending(files):
            self._bursts()
        return None

    def _ask(self, command: str) -> list[str]:
        """Have init do something; the lines that it tells.

        Raises:
            OSError: the guest's kernel refuses it.
        """
        self._answers.clear()
        self._lines.clear()
        self._guest.say(command)
        self._look_on(lambda: "told" in self._answers or "refused" in self._answers, _ANSWER_MAX_S, command)
        if "refused" in self._answers:
            raise OSError(errno.EINVAL, f"the guest refuses: {command}")
        return list(self._lines)

    def _bursts(self) -> None:
        """Fill, hold, remove and wait until all is reported, some times over; then switch the guest off."""
        config = self._config
        for burst in range(config.bursts):
            name = f"burst {burst + 1} of {config.bursts}"
            self._phase(f"{name}: eating", burst, f"fill {config.fill_bytes >> 20}", "filled")
            held_until_s = time.monotonic() + config.hold_s
            self._look_on(lambda until_s=held_until_s: time.monotonic() >= until_s)  # type: ignore[misc]
            self._phase(f"{name}: freed, reporting", burst, "remove", "removed")
            if config.tend:
                self._look_on(lambda: "tended" in self._answers, _TEND_MAX_S, "tending")
            self._await_quiet()

    def _phase(self, name: str, burst: int, command: str, answer: str) -> None:
        eats = answer == "filled"
        self._observer.stage(name)
        if self._attendant is not None:
            self._attendant.stage(name)
        self._recorder.phase_began(PhaseBegan(name, burst, eats, time.monotonic()))
        self._answers.clear()
        self._guest.say(command)
        self._look_on(lambda: answer in self._answers, _ANSWER_MAX_S, command)
        allocated_bytes = self._config.fill_bytes if eats else 0
        self._recorder.phase_ended(PhaseEnded(burst, eats, allocated_bytes, time.monotonic()))

    def _await_quiet(self) -> None:
        """Look on until nothing more comes back."""
        quiet = Quiet(int(self._config.ram_bytes * TRICKLE_SHARE))

        def is_quiet() -> bool:
            ledger = self._host.ledger
            reports = None if ledger is None else int(ledger.words[REPORTS])
            return quiet.by(time.monotonic(), reports, resident_bytes(self._memory_fd))

        self._look_on(is_quiet)

    def _look_on(self, until: Callable[[], bool], limit_s: float = float("inf"), doing: str = "") -> None:
        """Take what comes and sample, until this is so."""
        deadline_s = time.monotonic() + limit_s
        while not until():
            wait_s = max(0.0, self._next_s - time.monotonic())
            ready = {fd for fd, _ in self._poller.poll(wait_s * 1000)}
            if self._guest.fileno() in ready:
                for marker in self._guest.markers():
                    self._take(marker)
            host_is_there = self._host.fileno() not in ready or self._host.hear()
            if not host_is_there or self._guest.pidfd in ready:
                raise _RunOverError(self._how_it_ended())
            now_s = time.monotonic()
            if now_s >= self._next_s:
                self._host.look(now_s)
                self._next_s = max(self._next_s + SAMPLE_INTERVAL_S, now_s)
                sample = self._recorder.sample(now_s)
                if sample is not None:
                    self._observer.sample(sample)
            if now_s >= deadline_s:
                raise _RunOverError(f"the guest was not done with {doing} after {limit_s:g} s")

    def _take(self, marker: str) -> None:
        kind, _, rest = marker.partition(" ")
        if kind == "memory":
            free_kib, listed_kib = rest.split()
            self._view.told(int(free_kib), int(listed_kib))
        elif kind == "ready":
            self._kernel = KernelTold.read(rest)
        elif kind == "line":
            self._lines.append(rest)
        elif kind == "failed":
            raise _RunOverError(f"the guest stopped: {rest}")
        else:
            self._answers.append(kind)

    def _how_it_ended(self) -> str:
        """One of the two ended in the middle: which, and how."""
        patience_s = STOP_MAX_S if self._host.has_lost_guest() else 0.0  # a killed guest hangs up before it has ended
        if not self._guest.await_end(time.monotonic() + patience_s):
            return f"{self._host.how_it_ended()}; the guest was stopped"
        cause = self._guest.cause_of_death()
        self._guest.stop()  # its helpers hold the connection as well
        return cause + self._host.without_guest()

    def _end(self, outcome: str) -> None:
        """Note CPU time, then let the guest and the host go."""
        end_s = time.monotonic()
        guest_cpu_s = process_cpu_s(self._guest.pid)
        if outcome == "complete":
            self._guest.say("stop")
            self._guest.await_end(time.monotonic() + STOP_MAX_S)
        self._guest.stop()
        self._recorder.end(end_s, {"guest": guest_cpu_s, "host": self._host.stop()})

    def _result(self, outcome: str) -> RunResult:
        result = self._recorder.result(outcome)
        order = result.config.order if self._kernel is None else self._kernel.small_page_order
        return msgspec.structs.replace(
            result,
            config=msgspec.structs.replace(result.config, order=order),
            guest=self._title(),
        )

    def _title(self) -> str:
        pages = ""
        if self._kernel is not None and self._kernel.page_bytes != PAGE_SIZE_BYTES:
            pages = f", pages of {format_size(self._kernel.page_bytes)}"
        return f"Linux {self._hypervisor.parts.release} ({self._hypervisor.name}{pages})"


def _outcome(part: Callable[[], None]) -> str:
    """Do a part of the run; what became of it."""
    try:
        part()
    except _RunOverError as over:
        return str(over)
    except KeyboardInterrupt:
        return "interrupted"
    return "complete"
