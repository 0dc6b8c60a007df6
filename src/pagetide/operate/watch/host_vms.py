"""The VMs on this host, looked at again and again at little cost.

What a process holds for its guest exactly takes the kernel a walk through its page tables, some 3 to 13 ms a GiB.
So that is asked seldom, one VM after the other, and takes a small share of the time; in between what is held is taken
to change as all that the process has (/proc/PID/status), which costs nothing.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pagetide.operate.host.processes import ProcessError, find_vms, look_at, name_of, proc_text, sockets_of
from pagetide.operate.host.vmm_facts import VmmFacts

FIND_S = 5.0
"""How often VMs are looked for."""

SHARE = 0.02
"""Most of the time that goes into looks at page tables, once each VM was looked at."""

_STATUS = ("VmRSS", "VmSwap", "HugetlbPages")


class HostVm(NamedTuple):
    """A VM on this host.

    Attributes:
        name: what its command line calls it, or its VMM and process.
        facts: what was found at the last look at its page tables.
        held_bytes: what is held of its guest's memory now, as far as that is known.
        swapped_bytes: as much of that is in swap.
        sockets: where its balloons are that are behind a socket, resolved.
    """

    name: str
    facts: VmmFacts
    held_bytes: int
    swapped_bytes: int
    sockets: frozenset[Path]


class _Known(NamedTuple):
    started: str
    name: str
    facts: VmmFacts
    sockets: frozenset[Path]
    status: dict[str, int]
    looked_s: float


class HostVms:
    """Those that may be looked at."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Know of none; the clock says what is due."""
        self._clock_s = clock_s
        self._known: dict[int, _Known] = {}
        self._find_s = self._look_s = float("-inf")

    def look(self) -> list[HostVm]:
        """All of them, in the order of their processes."""
        now_s = self._clock_s()
        pids = list(self._known)
        if now_s - self._find_s >= FIND_S:
            pids, self._find_s = list(find_vms()), now_s
        before, self._known = self._known, {}
        new = []
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):
                known = before.get(pid)
                if known is not None and known.started == _started(pid):
                    self._known[pid] = known
                else:
                    new.append(pid)
        if new:
            self._look_at(new)
        elif self._known and now_s >= self._look_s:
            self._look_at([min(self._known, key=lambda pid: self._known[pid].looked_s)])
        vms = []
        for pid, known in self._known.items():
            with contextlib.suppress(OSError):  # it has gone
                vms.append(_as_now(known, _status(pid)))
        return vms

    def _look_at(self, pids: list[int]) -> None:
        """Look at the page tables of these, and at nobody's for so long after that it takes a small share."""
        start_s = self._clock_s()
        for pid in pids:
            try:
                self._known[pid] = self._full(pid)
            except (OSError, ProcessError, IndexError):
                self._known.pop(pid, None)
        end_s = self._clock_s()
        self._look_s = end_s + (end_s - start_s) * (1 / SHARE - 1)

    def _full(self, pid: int) -> _Known:
        facts, status = look_at(pid, counts_others=False), _status(pid)
        name = name_of(pid) or f"{facts.vmm} {pid}"
        return _Known(_started(pid), name, facts, frozenset(sockets_of(pid)), status, self._clock_s())


def _as_now(known: _Known, status: dict[str, int]) -> HostVm:
    """What was found, moved by what the process has got or lost since."""
    facts = known.facts
    swapped_bytes = facts.ram_swapped_bytes + status["VmSwap"] - known.status["VmSwap"]
    held_bytes = facts.ram_held_bytes + sum(status.values()) - sum(known.status.values())
    held_bytes = min(max(0, held_bytes), facts.ram_bytes)
    return HostVm(known.name, facts, held_bytes, min(max(0, swapped_bytes), held_bytes), known.sockets)


def _status(pid: int) -> dict[str, int]:
    """What a process has, in bytes (Documentation/filesystems/proc.rst)."""
    lines = proc_text(pid, "status").split("\n")
    told = dict(line.partition(":")[::2] for line in lines)
    return {name: int(told[name].split()[0]) << 10 if name in told else 0 for name in _STATUS}


def _started(pid: int) -> str:
    """When it was started, in ticks: a number that comes again is another process (proc_pid_stat(5), field 22)."""
    return proc_text(pid, "stat").rpartition(")")[2].split()[19]
