"""What discarding costs the host: bytes a CPU second through the whole device, against a bare loop of fallocate in C.

The device's side is everything that the server's loop does: it wakes by the kick, takes the elements, discards, gives
them back and calls. The guest's side (filling memory, the driver's half of the ring) is played in the same thread and
not timed; CPU time is the thread's own. Both sides discard blocks of the same kind, each of them apart from the next so
that there is nothing to join, in random order, from memory that the guest has mapped and touched. They take turns, a
report each, and the figure is the median over rounds of the ratio of a round's sums; the first round warms up.
"""

import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.host.bare_punch import BarePunch, NoCompilerError
from benchmarks.rows import Row, quartiles
from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES
from pagetide.host.memory.presence import LARGE_BYTES, ROOM_BYTES, ask_before, gone_bytes, returned_bytes
from pagetide.host.memory.punch import punch_hole
from pagetide.jit import kernel
from pagetide.machine.live.host_warm_up import warm_up_host
from pagetide.memory.guest_ram import Backing, GuestRam, GuestRamError
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES, format_size
from pagetide.virtio.balloon import Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import DESC_BYTES, place_ring
from pagetide.virtio.vhost_user.payloads import MemoryRegion, VringAddress
from pagetide.virtio.vhost_user.transport import FrontendChannel

CAPACITY = 32
"""Blocks of a report, as Linux has it."""

ROUNDS = 20
_TABLES_GPA = 256 << 10
_BESIDES_MAX_US = 40.0


class Case(NamedTuple):
    """Blocks to discard."""

    backing: Backing
    block_bytes: int
    blocks: int
    at_least: float
    capacity: int = CAPACITY

    @property
    def ring_bytes(self) -> int:
        """Where the blocks begin: behind the ring and its tables, in whole huge pages."""
        tables_bytes = self.capacity * self.capacity * DESC_BYTES  # a queue's table has at most its size
        return -(-(_TABLES_GPA + tables_bytes) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{format_size(self.block_bytes)} blocks, {self.backing}"


CASES = (
    Case("memfd", 2 << 20, 128, 0.99),
    Case("memfd", PAGE_SIZE_BYTES, 8192, 1.0),
    Case("hugetmpfs", 2 << 20, 128, 1.05),
)
_SMALL_OF_HUGE = Case("hugetmpfs", PAGE_SIZE_BYTES, 8192, 0.0)


class Guest:
    """Memory, a driver's ring at its start, and the server that serves it."""

    def __init__(self, ram: GuestRam, server: Server, case: Case) -> None:
        self.ram = ram
        self._size = case.capacity
        self._server = server
        ours, theirs = socket.socketpair()
        server.adopt(theirs)
        self.kick_fd, self.call_fd = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        place = place_ring(self._size, 0)
        self.ring = DriverRing(
            self._size,
            ram_address=ram.address,
            place=place,
            event_idx=True,
            table_descs=self._size,
            tables_gpa=_TABLES_GPA,
        )
        assert place.end_gpa <= _TABLES_GPA
        self.channel = FrontendChannel(ours)
        index = queues(FEATURES).index(Queue.REPORTING)
        address = VringAddress(index, 0, place.desc_gpa, place.used_gpa, place.avail_gpa)
        attaching = threading.Thread(target=self._attach, args=(address,))
        attaching.start()
        while attaching.is_alive():
            server.run_once(0.01)
        server.run_once(0)
        os.eventfd_read(self.call_fd)  # a queue that starts calls once

    def _attach(self, address: VringAddress) -> None:
        self.channel.negotiate(int(FEATURES))
        self.channel.set_mem_table([MemoryRegion(0, self.ram.size_bytes, 0, 0)], [self.ram.fd])
        inflight = self.channel.get_inflight(len(Queue), self._size)
        if inflight is not None:
            self.channel.set_inflight(*inflight)
            os.close(inflight[1])
        self.channel.start_queue(address, self._size, 0, self.kick_fd, self.call_fd)

    def report(self, block_bytes: int, *elements: npt.NDArray[np.int64]) -> int:
        """Report blocks of this size, in so many elements at once; the CPU time that serving them took, in ns."""
        for gpas in elements:
            self.ring.add_element(gpas, np.full(gpas.size, block_bytes, np.int64), writable=True)
        self.ring.arm_call()
        assert self.ring.publish(), "the device asks for a kick whenever it has nothing to do"
        os.eventfd_write(self.kick_fd, 1)
        start_ns = time.thread_time_ns()
        self._server.run_once(0)
        spent_ns = time.thread_time_ns() - start_ns
        assert os.eventfd_read(self.call_fd) == 1, "the driver was called"
        assert len(self.ring.take_used()) == len(elements)
        return spent_ns

    def close(self) -> None:
        """Leave the server."""
        self.channel.close()
        os.close(self.kick_fd)
        os.close(self.call_fd)


@contextmanager
def played_guest(case: Case, verify_share: float) -> Iterator[Guest]:
    """A guest with memory for the blocks of a case, and a server that reads so much of what it discards back."""
    ram = GuestRam.create(case.ring_bytes + 2 * case.blocks * case.block_bytes, case.backing)
    with ram, Server(verify_share=verify_share) as server:
        guest = Guest(ram, server, case)
        try:
            yield guest
        finally:
            guest.close()


class Bench:
    """One case, with its blocks in another order each round."""

    def __init__(self, case: Case, guest: Guest) -> None:
        self._case = case
        self._guest = guest
        self._rng = np.random.default_rng(1)
        self._offsets = case.ring_bytes + 2 * case.block_bytes * np.arange(case.blocks)

    def refill(self) -> list[npt.NDArray[np.int64]]:
        """Touch every page; the blocks of a round, in batches of a report each."""
        self._guest.ram.words[:: PAGE_SIZE_BYTES // 8] += 0
        order = self._rng.permutation(self._offsets)
        return np.split(order, range(self._case.capacity, order.size, self._case.capacity))

    def device_ns(self, batch: npt.NDArray[np.int64]) -> int:
        """CPU time of a report of these blocks through the device."""
        return self._guest.report(self._case.block_bytes, batch)

    def bare_ns(self, batch: npt.NDArray[np.int64], punch: BarePunch) -> int:
        """CPU time of these blocks in the loop of C."""
        start_ns = time.thread_time_ns()
        punch(self._guest.ram.fd, batch, self._case.block_bytes)
        return time.thread_time_ns() - start_ns


def against_bare(case: Case, punch: BarePunch, count: int = ROUNDS) -> list[Row]:
    """The device and the loop of C by turns, a batch each; every other of so many rounds the other one begins."""
    with played_guest(case, verify_share=0.0) as guest:
        bench = Bench(case, guest)
        rounds = []
        for number in range(1 + count):
            spent_ns = [0, 0]
            for place, batch in enumerate(bench.refill(), number):
                spent_ns[place % 2] += bench.bare_ns(batch, punch) if place % 2 else bench.device_ns(batch)
            rounds.append(spent_ns)
    reports = case.blocks / CAPACITY / 2
    device_ns, bare_ns = np.array(rounds[1:]).T / reports
    bytes_per_s = CAPACITY * case.block_bytes / (np.median(device_ns) / 1e9)
    low, ratio, high = quartiles((bare_ns / device_ns).tolist())
    spread = f"half of the {count} rounds: {low:.3f} to {high:.3f}"
    rows = [
        Row(f"discard, {case.name}", bytes_per_s / 2**30, "GiB a host CPU second"),
        Row(f"discard, {case.name}, device / bare C", ratio, "ratio", at_least=case.at_least, note=spread),
    ]
    if case.block_bytes == PAGE_SIZE_BYTES:
        besides_us = float(np.median(device_ns - bare_ns)) / 1000
        name = f"discard, {case.name}, a report of {CAPACITY} besides the punches"
        rows.append(Row(name, besides_us, "µs", at_most=_BESIDES_MAX_US))
    return rows


def _verification(case: Case) -> Row:
    """How much more CPU time a report takes when all of it is read back."""
    with played_guest(case, verify_share=0.0) as without, played_guest(case, verify_share=1.0) as with_it:
        benches = Bench(case, without), Bench(case, with_it)
        ratios = []
        for _ in range(1 + ROUNDS):
            spent_ns = [0, 0]
            for batches in zip(*(bench.refill() for bench in benches), strict=True):
                for side, batch in enumerate(batches):
                    spent_ns[side] += benches[side].device_ns(batch)
            ratios.append(spent_ns[1] / spent_ns[0])
    return Row(f"discard, {case.name}, all verified / none", statistics.median(ratios[1:]), "ratio")


@kernel
def _sweep(fd: int, offsets: npt.NDArray[np.int64], length_bytes: int, room: int, weigh: int, asks: int) -> int:
    """Discard these blocks and see what is gone, as the device does; ask each time what was there before, or never."""
    total: int = 0
    for place in range(offsets.size):
        held = ask_before(fd, offsets[place], length_bytes, room, weigh) if asks != 0 else -1
        punch_hole(fd, offsets[place], length_bytes)
        gone = gone_bytes(fd, offsets[place], length_bytes)
        total += returned_bytes(fd, length_bytes, room, weigh, held, gone) if asks != 0 else gone
    return total


def _returned(case: Case) -> Row:
    """How much more CPU time a discard that is verified takes when it is known what it returned."""
    room = np.zeros(ROOM_BYTES // 8 + 1, np.int64)
    with played_guest(case, verify_share=1.0) as guest:
        bench = Bench(case, guest)
        is_small_paged = case.backing == "memfd"
        weigh = int(is_small_paged and case.block_bytes >= LARGE_BYTES)
        ratios = []
        for number in range(1 + ROUNDS):
            spent_ns = [0, 0]
            for place, batch in enumerate(bench.refill(), number):
                start_ns = time.thread_time_ns()
                _sweep(guest.ram.fd, batch, case.block_bytes, room.ctypes.data, weigh, place % 2)
                spent_ns[place % 2] += time.thread_time_ns() - start_ns
            ratios.append(spent_ns[1] / spent_ns[0])
    at_most = 1.03 if case.block_bytes > PAGE_SIZE_BYTES else 1.15
    return Row(f"discard, {case.name}, returned known / not", statistics.median(ratios[1:]), "ratio", at_most=at_most)


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    try:
        punch = BarePunch()
    except NoCompilerError as error:
        punch, reason = None, str(error)
    warm_up_host()  # or the guest is charged with the loading of kernels, uses up its allowance, and rests
    for case in CASES:
        try:
            if punch is None:
                yield Row(f"discard, {case.name}, device / bare C", None, "ratio", note=reason)
            else:
                yield from against_bare(case, punch)
            yield _verification(case)
            yield _returned(case)
        except GuestRamError as error:
            yield Row(f"discard, {case.name}", None, "GiB a host CPU second", note=str(error))
    try:
        yield _returned(_SMALL_OF_HUGE)
    except GuestRamError as error:
        yield Row(f"discard, {_SMALL_OF_HUGE.name}, returned known / not", None, "ratio", note=str(error))
