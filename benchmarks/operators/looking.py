"""What `pagetide why` takes to look at a VM of 64 GiB in pages of 4 KiB, and what it takes from that VM.

The VM is a process with such a memory, named as QEMU names it, that has touched a part: the kernel's walk of its page
tables grows with what is there, so two parts tell what all of it would take. For the other figure it works, and counts
its rounds: each touches some pages at random, and gives a little back and takes it again. In four slots it is left
alone, looked at, looked at, and left alone, so that whatever becomes slower steadily is in both; while it is left alone
the same thread burns its processor. The looks follow each other without a pause, which nobody does.
"""

import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.rows import Row
from pagetide import linux
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.operate.host.processes import look_at
from pagetide.units import GIB, MIB, PAGE_SIZE_BYTES

_RAM_BYTES = 64 * GIB
_PARTS_BYTES = (2 * GIB, 6 * GIB)
_REPEATS = 5
_SLOT_S = 0.05
_GROUPS = 300
_BUSY_BYTES = GIB
_TOUCHED_PAGES = 128
_AGAIN_BYTES = 128 << 10
_NORMAL_95 = 1.96

_LAUNCHER = """\
import os, sys, time
start_s = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(child, 0)
print(time.perf_counter() - start_s, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class _Look(NamedTuple):
    """One run of the command."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def be_a_vm(touched_bytes: int, counter_fd: int) -> None:
    """The VM, in a process of its own: touch so much of its memory, and then work for good, counted in the file."""
    fd = os.memfd_create("memory-backend-memfd")
    os.truncate(fd, _RAM_BYTES)
    ram = np.frombuffer(mmap.mmap(fd, _RAM_BYTES, mmap.MAP_SHARED), np.int64)
    counted = np.frombuffer(mmap.mmap(counter_fd, PAGE_SIZE_BYTES, mmap.MAP_SHARED), np.int64)
    words = PAGE_SIZE_BYTES // 8
    ram[: touched_bytes // 8 : words] = 1
    counted[0] = 1
    if touched_bytes != _BUSY_BYTES:
        sys.stdin.read()
    rng = np.random.default_rng(1)
    while True:
        ram[rng.integers(0, touched_bytes // PAGE_SIZE_BYTES, _TOUCHED_PAGES) * words] += 1
        linux.punch_hole(fd, 0, _AGAIN_BYTES)
        ram[: _AGAIN_BYTES // 8 : words] = 1
        counted[0] += 1


@contextmanager
def _vm(touched_bytes: int, folder: Path) -> Iterator[tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Such a process, which has touched that much, and its counter."""
    program = folder / "qemu-system-bench"
    if not program.exists():
        program.symlink_to(sys.executable)
    counter_fd = os.memfd_create("counter")
    try:
        os.truncate(counter_fd, PAGE_SIZE_BYTES)
        counter = np.frombuffer(mmap.mmap(counter_fd, PAGE_SIZE_BYTES, mmap.MAP_SHARED), np.int64)
        code = f"from benchmarks.operators.looking import be_a_vm; be_a_vm({touched_bytes}, {counter_fd})"
        path = os.pathsep.join(sys.path)
        with subprocess.Popen(
            [program, "-c", code], stdin=subprocess.PIPE, pass_fds=[counter_fd], env=os.environ | {"PYTHONPATH": path}
        ) as process:
            try:
                while not counter[0]:
                    if process.poll() is not None:
                        raise ChildProcessError("the VM has ended")
                    time.sleep(0.05)
                yield process.pid, counter
            finally:
                process.kill()
    finally:
        os.close(counter_fd)


def _why(pid: int, guest: Path) -> _Look:
    """The whole command, from its start to its end.

    It is started by a small process, since the kernel counts what a process had before its exec for its peak.
    """
    command = [sys.executable, "-m", "pagetide.cli", "why", str(pid), "--guest", str(guest)]
    done = subprocess.run([sys.executable, "-I", "-c", _LAUNCHER, *command], capture_output=True, text=True, check=True)
    wall_s, cpu_s, peak_kib = done.stderr.split()
    return _Look(float(wall_s), float(cpu_s), int(peak_kib) << 10)


def _burn_until(end_s: float) -> None:
    while time.perf_counter() < end_s:
        pass


def _look_until(end_s: float, pid: int) -> None:
    while time.perf_counter() < end_s:
        look_at(pid)


def _slowdowns(pid: int, counter: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    """How much less it does while it is looked at, in percent; one figure for each four slots."""
    found = []
    for _ in range(_GROUPS):
        rates = {True: 0.0, False: 0.0}
        for is_looked_at in (False, True, True, False):
            start_s, before = time.perf_counter(), int(counter[0])
            if is_looked_at:
                _look_until(start_s + _SLOT_S, pid)
            else:
                _burn_until(start_s + _SLOT_S)
            rates[is_looked_at] += (int(counter[0]) - before) / (time.perf_counter() - start_s)
        if all(rates.values()):  # or something else had all processors
            found.append(100 * (1 - rates[True] / rates[False]))
    return found


def median_between(values: Sequence[float]) -> tuple[float, float, float]:
    """Between which two the median is with 95 % confidence, by ranks alone, and in the middle that of these values."""
    ranked = sorted(values)
    reach = _NORMAL_95 * len(ranked) ** 0.5 / 2
    low, high = int(len(ranked) / 2 - reach), int(len(ranked) / 2 + reach)
    return ranked[max(0, low)], statistics.median(ranked), ranked[min(len(ranked) - 1, high)]


def run() -> Iterator[Row]:
    """Measure; one row a figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guest = folder / "guest.txt"
        guest.write_bytes(subprocess.run(["sh"], input=GUEST_SCRIPT.encode(), capture_output=True, check=True).stdout)
        cpu_s, peak_bytes = [], 0
        for touched_bytes in _PARTS_BYTES:
            with _vm(touched_bytes, folder) as (pid, _):
                looks = [_why(pid, guest) for _ in range(1 + _REPEATS)][1:]
            cpu_s.append(min(look.cpu_s for look in looks))
            peak_bytes = max(peak_bytes, *(look.peak_bytes for look in looks))
        few, many = _PARTS_BYTES
        yield Row(f"why, 64 GiB, {many // GIB} GiB there", min(look.wall_s for look in looks), "s", at_most=2)
        all_s = cpu_s[0] + (cpu_s[1] - cpu_s[0]) * (_RAM_BYTES - few) / (many - few)
        note = f"its processor time, from {few // GIB} and {many // GIB} GiB"
        yield Row("why, 64 GiB, all of it there", all_s, "s", at_most=2, note=note)
        yield Row("why, 64 GiB, memory of the command", peak_bytes / MIB, "MiB", at_most=150)
        with _vm(_BUSY_BYTES, folder) as (pid, counter):
            slowdowns = _slowdowns(pid, counter)
            low, middle, high = median_between(slowdowns)
            note = f"looked at all the time; {low:.2f} to {high:.2f} % with 95 % confidence, {len(slowdowns)} groups"
            yield Row("why, a VM under load that is looked at, slower", middle, "%", at_most=1, note=note)
