"""Our device against QEMU's on the same work: bytes discarded a host CPU second, in one run, by turns.

Both get the same elements from the same driver's half of a ring, in memory of the same kind that the guest has mapped
and touched: for large blocks four elements of 32 a kick, for adjacent small ones 32 of 32, so that the kick itself,
which costs QEMU the reading of a qtest command, is little beside them; what an empty kick costs it is printed, and
not taken off. QEMU's CPU time is that of all its threads (/proc/PID/task/TID/schedstat, in nanoseconds), ours that of
the thread in which the server runs. Neither reads back what it discarded.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.host_discard import _CAPACITY, _RING_BYTES, _Guest
from benchmarks.rows import Row
from pagetide.host.server import Server
from pagetide.machine.qemu_device import QemuDevice
from pagetide.machine.qemu_process import QemuError
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES, format_size
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.ring import place_ring
from pagetide.virtio.ring_driver import DriverRing

_ROUNDS = 12
_RING_GPA = 16 << 20
_DATA_GPA = 32 << 20
_GIVE_UP_S = 20.0
_WANTED = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.STATS_VQ | Feature.REPORTING


class _Case(NamedTuple):
    block_bytes: int
    elements: int
    at_least: float

    @property
    def name(self) -> str:
        return f"{format_size(self.block_bytes)} blocks" + (", adjacent" if self.block_bytes == PAGE_SIZE_BYTES else "")

    @property
    def bytes(self) -> int:
        return self.elements * _CAPACITY * self.block_bytes


_CASES = (_Case(2 << 20, 4, 1.0), _Case(PAGE_SIZE_BYTES, 32, 2.0))


class _Ours:
    """Our server, in this thread."""

    def __init__(self, ram: GuestRam, server: Server) -> None:
        self._guest, self._server = _Guest(ram, server), server
        self.ram, self.ring, self.data_gpa = ram, self._guest.ring, _RING_BYTES
        self.close = self._guest.close

    def kick_ns(self, elements: int) -> int:
        """CPU time of dealing with this many elements, which are in the ring."""
        os.eventfd_write(self._guest.kick_fd, 1)
        done, start_ns = 0, time.thread_time_ns()
        while done < elements:
            self._server.run_once(0)
            done += len(self.ring.take_used())
        spent_ns = time.thread_time_ns() - start_ns
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._guest.call_fd)
        return spent_ns


class _Qemu:
    """A stock QEMU."""

    def __init__(self, qemu: QemuDevice) -> None:
        self._pci, self._tasks = qemu.pci, Path(f"/proc/{qemu.pid}/task")
        self.ram, self.data_gpa = qemu.ram, _DATA_GPA
        features = Feature(self._pci.negotiate(_WANTED))
        assert features == _WANTED
        self._index = queues(features).index(Queue.REPORTING)
        place = place_ring(_CAPACITY, _RING_GPA)
        self.ring = DriverRing(
            _CAPACITY,
            ram_address=self.ram.address,
            desc_gpa=place.desc_gpa,
            avail_gpa=place.avail_gpa,
            used_gpa=place.used_gpa,
            event_idx=True,
            table_descs=_CAPACITY,
            tables_gpa=_RING_GPA + _RING_BYTES // 2,
        )
        self._pci.start_queue(self._index, _CAPACITY, place.desc_gpa, place.avail_gpa, place.used_gpa)
        self._pci.driver_ok()

    def kick_ns(self, elements: int) -> int:
        """CPU time of dealing with this many elements, which are in the ring."""
        start_ns = self._cpu_ns()
        self._pci.kick(self._index)
        done, give_up_s = 0, time.monotonic() + _GIVE_UP_S
        while done < elements:
            assert time.monotonic() < give_up_s, "QEMU does not answer"
            done += len(self.ring.take_used())
            time.sleep(0.0002)
        return self._cpu_ns() - start_ns

    def _cpu_ns(self) -> int:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks.iterdir())


def _discard_ns(device: _Ours | _Qemu, case: _Case, order: npt.NDArray[np.int64]) -> int:
    """Touch the memory, report all of it in this order of elements, and see that it is gone; the device's CPU time."""
    first = device.data_gpa // PAGE_SIZE_BYTES
    device.ram.words.reshape(-1, PAGE_SIZE_BYTES // 8)[first : first + case.bytes // PAGE_SIZE_BYTES, 0] += 1
    lengths = np.full(_CAPACITY, case.block_bytes, np.int64)
    for element in order:
        gpas = device.data_gpa + (element * _CAPACITY + np.arange(_CAPACITY)) * case.block_bytes
        assert device.ring.add_element(gpas, lengths, writable=True) is not None
    device.ring.publish()
    before_bytes = resident_bytes(device.ram.fd)
    spent_ns = device.kick_ns(len(order))
    gone_bytes = before_bytes - resident_bytes(device.ram.fd)
    assert gone_bytes == case.bytes, f"{gone_bytes} of {case.bytes} bytes are gone"
    return spent_ns


@contextlib.contextmanager
def _both(case: _Case) -> Iterator[tuple[_Ours, _Qemu]]:
    ram = GuestRam.create(_RING_BYTES + case.bytes, "memfd")
    with ram, Server(verify_share=0.0) as server, QemuDevice(-(-(_DATA_GPA + case.bytes) >> 20 << 20)) as qemu:
        ours = _Ours(ram, server)
        try:
            yield ours, _Qemu(qemu)
        finally:
            ours.close()


def _case(case: _Case) -> list[Row]:
    rng = np.random.default_rng(1)
    spent: list[tuple[int, int]] = []
    with _both(case) as (ours, qemu):
        for number in range(1 + _ROUNDS):
            order = rng.permutation(case.elements)
            sides: list[_Ours | _Qemu] = [ours, qemu]
            took = {side: _discard_ns(side, case, order) for side in (sides if number % 2 else sides[::-1])}
            spent.append((took[ours], took[qemu]))
        empty_ns = statistics.median(qemu.kick_ns(0) for _ in range(_ROUNDS))
    ours_ns, qemu_ns = np.array(spent[1:]).T
    gib = case.bytes / 2**30
    unit = "GiB a host CPU second"
    return [
        Row(f"discard, {case.name}, ours", gib / (float(np.median(ours_ns)) / 1e9), unit),
        Row(f"discard, {case.name}, QEMU's device", gib / (float(np.median(qemu_ns)) / 1e9), unit),
        Row(f"discard, {case.name}, ours / QEMU", float(np.median(qemu_ns / ours_ns)), "ratio", at_least=case.at_least),
        Row(f"discard, {case.name}, an empty kick's share of QEMU", empty_ns / float(np.median(qemu_ns)), "share"),
    ]


def run() -> list[Row]:
    """Measure; one row a figure."""
    try:
        return [row for case in _CASES for row in _case(case)]
    except QemuError as error:
        return [Row("discard, ours / QEMU", None, "ratio", note=str(error))]
