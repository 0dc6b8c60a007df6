"""Our daemon against QEMU's device on the same work: bytes discarded a host CPU second, in one run, by turns.

Both are processes of their own and get the same elements from the same driver's half of a ring, in one and the same
memory file, which the guest, which is this process, has mapped and touched: with a file each, the same device came out
up to 2 % better or worse from run to run, by which pages its file happened to get. For large blocks there are four
elements of 32 a kick, for adjacent small ones 32 of 32, so that the kick itself, which costs QEMU the reading of a
qtest command, is little beside them; what an empty kick costs is printed, and not taken off. Scattered small ones come
one element a kick, as from a guest that frees little: there the way to the first call counts. CPU time is that of all
threads of each (/proc/PID/task/TID/schedstat, in nanoseconds). Neither reads back what it discarded.

The guest has a CPU to itself, and the devices share another. Left to the scheduler, the daemon, which an eventfd wakes,
often shares a CPU with the guest, whose looks into the used ring then preempt it some 190 times a kick, and QEMU some
12: that alone cost ours 2 to 5 %. On 2 MiB blocks both spend nearly all of their time in fallocate, so the ratio is
close to 1: it takes many rounds to tell, for rounds differ by 5 % and more. The median's standard error is told.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.rows import Row, quartiles
from pagetide.guest.driver.link import VhostUserLink, connect
from pagetide.guest.driver.reporting import WANTED, BalloonTransport
from pagetide.machine.qemu.device import QemuDevice
from pagetide.machine.qemu.process import QemuError
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES, format_size
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import place_ring

_CAPACITY = 32
_EMPTY_KICKS = 60
_OUR_RING_GPA, _QEMU_RING_GPA = 16 << 20, 20 << 20
_TABLES_BYTES = 2 << 20
_DATA_GPA = 32 << 20
_GIVE_UP_S = 60.0

_MEDIAN_ERROR = 1.25
"""The standard error of a median, by that of the mean, if what is measured is about normal."""


class Case(NamedTuple):
    """Blocks to discard: their size, how many elements of 32 a kick, how many rounds, and the ratio asked.

    Of `among` blocks, if that is not 0, those of a round are chosen at random, and none adjoins another.
    """

    block_bytes: int
    elements: int
    rounds: int
    at_least: float
    among: int = 0

    @property
    def name(self) -> str:
        """As it is printed."""
        size = f"{format_size(self.block_bytes)} blocks"
        if self.among:
            return f"{size}, scattered, a report a kick" if self.elements == 1 else f"{size}, scattered"
        return size + (", adjacent" if self.block_bytes == PAGE_SIZE_BYTES else "")

    @property
    def bytes(self) -> int:
        """Of a round."""
        return self.elements * _CAPACITY * self.block_bytes

    @property
    def span_bytes(self) -> int:
        """From the first block to the end of the last."""
        return 2 * self.among * self.block_bytes or self.bytes

    def choose(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Where a round's blocks begin, in bytes from the first: a row an element."""
        if self.among:
            chosen = 2 * rng.permutation(self.among)[: self.elements * _CAPACITY]
        else:
            chosen = _CAPACITY * rng.permutation(self.elements)[:, None] + np.arange(_CAPACITY)
        return chosen.reshape(self.elements, _CAPACITY) * self.block_bytes


CASES = (
    Case(2 << 20, 4, 240, 1.0),
    Case(PAGE_SIZE_BYTES, 32, 60, 2.0),
    Case(PAGE_SIZE_BYTES, 1, 480, 1.1, among=8192),
)


class _Device:
    """A device with a started reporting queue."""

    def __init__(self, transport: BalloonTransport, ram: GuestRam, ring_gpa: int, pid: int) -> None:
        self.ram = ram
        self._transport, self._tasks = transport, Path(f"/proc/{pid}/task")
        features = Feature(transport.negotiate(WANTED))
        assert features == WANTED
        self._index = queues(features).index(Queue.REPORTING)
        place = place_ring(_CAPACITY, ring_gpa)
        tables_gpa = ring_gpa + _TABLES_BYTES
        assert place.end_gpa <= tables_gpa
        self.ring = DriverRing(
            _CAPACITY,
            ram_address=ram.address,
            place=place,
            event_idx=True,
            table_descs=_CAPACITY,
            tables_gpa=tables_gpa,
        )
        transport.start_queue(self._index, _CAPACITY, place.desc_gpa, place.avail_gpa, place.used_gpa)
        transport.driver_ok()

    def run_on(self, cpu: int) -> None:
        """Keep all threads of the device on one CPU."""
        for task in self._tasks.iterdir():
            os.sched_setaffinity(int(task.name), {cpu})

    def kick_ns(self, elements: int) -> int:
        """CPU time of dealing with this many elements, which are in the ring."""
        start_ns = self._cpu_ns()
        self._transport.kick(self._index)
        done, give_up_s = 0, time.monotonic() + _GIVE_UP_S
        while done < elements:
            assert time.monotonic() < give_up_s, "the device does not answer"
            done += len(self.ring.take_used())
            time.sleep(0.0002)
        time.sleep(0.001)  # it goes back to sleep
        return self._cpu_ns() - start_ns

    def _cpu_ns(self) -> int:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks.iterdir())


def _discard_ns(device: _Device, case: Case, blocks: npt.NDArray[np.int64]) -> int:
    """Touch these blocks, report them, and see that they are gone; the device's CPU time."""
    pages = (_DATA_GPA + blocks.reshape(-1, 1)) // PAGE_SIZE_BYTES + np.arange(case.block_bytes // PAGE_SIZE_BYTES)
    device.ram.words.reshape(-1, PAGE_SIZE_BYTES // 8)[pages, 0] += 1
    lengths = np.full(_CAPACITY, case.block_bytes, np.int64)
    for element in blocks:
        assert device.ring.add_element(_DATA_GPA + element, lengths, writable=True) is not None
    device.ring.publish()
    before_bytes = resident_bytes(device.ram.fd)
    spent_ns = device.kick_ns(len(blocks))
    gone_bytes = before_bytes - resident_bytes(device.ram.fd)
    assert gone_bytes == case.bytes, f"{gone_bytes} of {case.bytes} bytes are gone"
    return spent_ns


@contextlib.contextmanager
def _daemon(ram: GuestRam) -> Iterator[_Device]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/vm.sock"
        command = [sys.executable, "-c", "from pagetide.cli import main; raise SystemExit(main())", "serve"]
        command += ["--socket", path, "--control", f"{folder}/control.sock", "--verify", "0"]
        log = subprocess.DEVNULL
        with subprocess.Popen(command, stderr=log, stdout=log) as daemon:
            try:
                give_up_s = time.monotonic() + _GIVE_UP_S
                while not Path(path).exists():
                    assert daemon.poll() is None, f"the daemon ended with status {daemon.returncode}"
                    assert time.monotonic() < give_up_s, "the daemon does not listen"
                    time.sleep(0.02)
                with VhostUserLink(connect(path), ram) as link:
                    yield _Device(link, ram, _OUR_RING_GPA, daemon.pid)
            finally:
                daemon.terminate()


@contextlib.contextmanager
def _on_two_cpus(*devices: _Device) -> Iterator[None]:
    """This process on one CPU and the devices on another, if there are two."""
    cpus = os.sched_getaffinity(0)
    if len(cpus) > 1:
        for device in devices:
            device.run_on(max(cpus))
        os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def _both(case: Case) -> Iterator[tuple[_Device, _Device]]:
    ram_bytes = -(-(_DATA_GPA + case.span_bytes) >> 20 << 20)
    with QemuDevice(ram_bytes) as qemu, _daemon(qemu.ram) as ours:
        theirs = _Device(qemu.pci, qemu.ram, _QEMU_RING_GPA, qemu.pid)
        with _on_two_cpus(ours, theirs):
            yield ours, theirs


def compare(case: Case) -> list[Row]:
    """Both devices on the same work, by turns."""
    rng = np.random.default_rng(1)
    spent: list[tuple[int, int]] = []
    with _both(case) as (ours, qemu):
        for number in range(1 + case.rounds):
            blocks = case.choose(rng)
            sides = [ours, qemu]
            took = {side: _discard_ns(side, case, blocks) for side in (sides if number % 2 else sides[::-1])}
            spent.append((took[ours], took[qemu]))
        empty_ns = [statistics.median(side.kick_ns(0) for _ in range(_EMPTY_KICKS)) for side in (ours, qemu)]
    ours_ns, qemu_ns = np.array(spent[1:]).T
    ratios = qemu_ns / ours_ns
    low, middle, high = quartiles(ratios.tolist())
    error = _MEDIAN_ERROR * float(np.std(ratios)) / len(ratios) ** 0.5
    spread = f"± {error:.3f}; half of the {case.rounds} rounds: {low:.3f} to {high:.3f}"
    gib = case.bytes / 2**30
    unit = "GiB a host CPU second"
    return [
        Row(f"discard, {case.name}, ours", gib / (float(np.median(ours_ns)) / 1e9), unit),
        Row(f"discard, {case.name}, QEMU's device", gib / (float(np.median(qemu_ns)) / 1e9), unit),
        Row(f"discard, {case.name}, ours / QEMU", middle, "ratio", at_least=case.at_least, note=spread),
        Row(f"discard, {case.name}, an empty kick's share, ours", empty_ns[0] / float(np.median(ours_ns)), "share"),
        Row(f"discard, {case.name}, an empty kick's share, QEMU", empty_ns[1] / float(np.median(qemu_ns)), "share"),
    ]


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    try:
        for case in CASES:
            yield from compare(case)
    except QemuError as error:
        yield Row("discard, ours / QEMU", None, "ratio", note=str(error))
