"""`pagetide tend` on real guests: what comes back of memory that is free in pieces, and for how many reports.

Each guest does the same three times: with its kernel's own reporting (order 9), the same tended, and with reporting of
order 0 all along. The load is a file every other page of which is freed, the worst layout; or a tree of files made by
short processes, two at a time, most of which is removed, as after a build. Boot, load and rest are in what is told of
reports. How long the script's looks take while the guest is busy is measured on this computer, with files of a guest's.
What the load costs with it and without is the guest's own count (user and system time in its /proc/stat, from the
build's beginning to when it is removed), by turns.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.rows import Row
from pagetide.inside import Language, tend_script
from pagetide.machine.config_error import ConfigError
from pagetide.machine.linux.architectures import AMD64, AMD64_TRIXIE, Architecture
from pagetide.machine.linux.attendant import GuestFiles
from pagetide.machine.linux.balloon_host import OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.guest import Hypervisor
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts, find_linux, find_qemu, find_uml, find_umls
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.machine.observer import Nobody
from pagetide.units import MIB

_CONFIG = BootConfig(ram_bytes=512 * MIB, fill_bytes=200 * MIB, bursts=1)
_LOADS = {"every other page": {"sieve": True}, "build": {"build": True}}
_WAYS: dict[str, dict[str, Any]] = {"order 9": {}, "tended": {"tend": True}, "order 0": {"order": 0}}
_LOOKS_S = 20
_TURNS = 5
_TICKS_PER_S = 100
"""What a guest's /proc/stat counts in (USER_HZ)."""


class _Returned(NamedTuple):
    """What came back after the load, and how many reports there were in all."""

    mib: float
    reports: int


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    yield from (_looks(language) for language in ("sh", "py"))
    umls: list[GuestParts | None] = [*find_umls()]
    finders: list[tuple[str, Callable[[], Hypervisor]]] = [
        *(("UML", lambda parts=parts: UserModeLinux(parts or find_uml())) for parts in umls or [None]),
        ("QEMU", lambda: _qemu(AMD64)),
        ("QEMU, Debian 13", lambda: _qemu(AMD64_TRIXIE)),
    ]
    for name, find in finders:
        try:
            hypervisor = find()
        except ConfigError as missing:
            yield Row(f"{name}: came back", None, "MiB", note=str(missing))
            continue
        for load, settings in _LOADS.items():
            yield from _guest(f"{name}, {hypervisor.parts.release}, {load}", hypervisor, settings)
        yield _load_cpu(f"{name}, {hypervisor.parts.release}", hypervisor)


def _qemu(architecture: Architecture) -> Hypervisor:
    program = find_qemu(generic=True, architecture=architecture)
    return Qemu(find_linux(architecture=architecture), program, is_balloon=False, architecture=architecture)


def _guest(name: str, hypervisor: Hypervisor, load: dict[str, Any]) -> Iterator[Row]:
    """One guest after one load, three ways."""
    found = {}
    for way, settings in _WAYS.items():
        config = msgspec.structs.replace(_CONFIG, **load | settings)
        result = LinuxMachine(config, hypervisor, OwnHost(config)).run(Nobody())
        if result.outcome != "complete":
            yield Row(f"{name}, {way}: came back", None, "MiB", note=result.outcome)
            return
        assert result.reports is not None
        burst = result.bursts[0]
        found[way] = _Returned(burst.returned_bytes / MIB, result.reports)
        assert result.guest_cpu_s is not None
        lag = "" if burst.return_lag_s is None else f", the last of it after {burst.return_lag_s:.0f} s"
        note = f"{result.reports} reports, {result.guest_cpu_s:.1f} s CPU of the guest{lag}"
        yield Row(f"{name}, {way}: came back", found[way].mib, "MiB", note=note)
    alone, tended, least = (found[way] for way in _WAYS)
    held_mib = least.mib - alone.mib
    yield Row(f"{name}: of what only order 0 returns", (tended.mib - alone.mib) / held_mib, "share", at_least=0.85)
    yield Row(f"{name}: reports, tended / order 0", tended.reports / least.reports, "ratio", at_most=0.2)


class _LoadCpu:
    """Reads a guest's CPU time when a stage begins; what an Attendant is.

    Attributes:
        used_s: at each stage so far.
    """

    def __init__(self) -> None:
        """Nothing has begun yet."""
        self.used_s: list[float] = []

    @contextlib.contextmanager
    def attending(self, files: GuestFiles) -> Iterator[None]:
        """Have the guest's files."""
        self._files = files
        yield

    def stage(self, name: str) -> None:
        """Read."""
        user, nice, system, _, _, irq, softirq = map(int, self._files.read("/proc/stat").split()[1:8])
        self.used_s.append((user + nice + system + irq + softirq) / _TICKS_PER_S)


def _load_cpu(name: str, hypervisor: Hypervisor) -> Row:
    """The guest's CPU time from the build's beginning to its removal, tended over left alone, by turns."""
    spent_s: dict[str, list[float]] = {"order 9": [], "tended": []}
    for _ in range(_TURNS):
        for way, spent in spent_s.items():
            config = msgspec.structs.replace(_CONFIG, **_LOADS["build"] | _WAYS[way])
            load = _LoadCpu()
            result = LinuxMachine(config, hypervisor, OwnHost(config), load).run(Nobody())
            if result.outcome != "complete":
                return Row(f"{name}: CPU of the load", None, "ratio", note=result.outcome)
            begun_s, removed_s = load.used_s
            spent.append(removed_s - begun_s)
    alone, tended = (statistics.median(spent) for spent in spent_s.values())
    note = ", ".join(f"{way} {min(spent):.2f} to {max(spent):.2f} s" for way, spent in spent_s.items())
    return Row(f"{name}: CPU of the load, tended / order 9", tended / alone, "ratio", at_most=1.01, note=note)


def _looks(language: Language) -> Row:
    """The CPU time of a script that sees a busy guest for some seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            "sys/module/page_reporting/parameters/page_reporting_order": "9",
            "proc/stat": "cpu 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0",
            "proc/pressure/memory": "some avg10=99.00 avg60=99.00 avg300=99.00 total=0",
            "proc/interrupts": "24: 5 PCI-MSI virtio0-reporting_vq",
            "run/empty": "",
        }
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text + "\n")
        words = {"sh": ["/bin/sh", "-c"], "py": [sys.executable, "-I", "-S", "-c"]}[language]
        command = [*words, tend_script(language)]
        with subprocess.Popen(command, env=os.environ | {"TEND_ROOT": name}, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has started
            before_s = _with_children_s(process.pid)
            time.sleep(_LOOKS_S)
            used_s = _with_children_s(process.pid) - before_s
            process.terminate()
    return Row(f"tend.{language} in a busy guest", 100 * used_s / _LOOKS_S, "% of a processor", at_most=1)


def _with_children_s(pid: int) -> float:
    """CPU seconds of a process and of those children that it has waited for (proc_pid_stat(5), utime to cstime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
