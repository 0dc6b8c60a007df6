"""What many guests cost one server: idle ones in CPU and memory, busy ones in fairness.

The server runs in a process of its own, so that its CPU time and memory are its own. Each guest is a front-end with a
memory file of its own and a reporting queue, played from here.
"""

import multiprocessing
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.rows import Row
from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES
from pagetide.machine.live.host_warm_up import warm_up_host
from pagetide.memory.guest_ram import GuestRam
from pagetide.processes import process_cpu_s
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import DESC_BYTES, place_ring
from pagetide.virtio.vhost_user.payloads import MemoryRegion, VringAddress
from pagetide.virtio.vhost_user.transport import FrontendChannel

_IDLE_GUESTS = 1000
_IDLE_S = 5.0
SOCKETS = 8
"""The guests of one socket may hold a part of the server's descriptors only."""
_BUSY_GUESTS = 64
_BUSY_S = 3.0
_RING_BYTES = 64 * PAGE_SIZE_BYTES
BUSY_RAM_BYTES = 2 * _RING_BYTES
_SIZE = 32
_INDEX = queues(FEATURES).index(Queue.REPORTING)


def _serve(paths: Sequence[str], stop_fd: int, control: Path | None) -> None:
    with Server(verify_share=0.0) as server:
        if control is not None:
            server.listen_control(control)
        for path in paths:
            server.listen(path)
        server.run(stop_fd)


class ServerProcess(NamedTuple):
    """A server in a process of its own: where guests connect, and the process."""

    paths: Sequence[str]
    pid: int

    @property
    def resident_bytes(self) -> int:
        """Memory of the process that is its own: neither files nor what guests share."""
        fields = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(field.split()[1]) << 10 for field in fields if field.startswith("RssAnon:"))


@contextmanager
def server_process(folder: Path, control: Path | None = None) -> Iterator[ServerProcess]:
    """Run a server as long as this lasts, with a control socket if a path is given."""
    warm_up_host()  # or the guests are charged with the loading of kernels
    stop_fd = os.eventfd(0)
    paths = [str(folder / f"many-guests-{os.getpid()}-{number}.sock") for number in range(SOCKETS)]
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(paths, stop_fd, control))
    process.start()
    assert process.pid is not None
    try:
        yield ServerProcess(paths, process.pid)
    finally:
        os.eventfd_write(stop_fd, 1)
        process.join()
        os.close(stop_fd)


class PlayedGuest:
    """One guest, attached and started."""

    def __init__(self, path: str, ram_bytes: int, resources: ExitStack) -> None:
        self.ram = resources.enter_context(GuestRam.create(ram_bytes, "memfd"))
        self.kick_fd, self.call_fd = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))
        resources.callback(os.close, self.kick_fd)
        resources.callback(os.close, self.call_fd)
        sock = socket.socket(socket.AF_UNIX)
        while sock.connect_ex(path):
            time.sleep(0.01)
        channel = FrontendChannel(sock, timeout_s=60.0)
        resources.callback(channel.close)
        channel.negotiate(int(FEATURES))
        channel.set_mem_table([MemoryRegion(0, ram_bytes, 0, 0)], [self.ram.fd])
        place = place_ring(_SIZE, 0)
        self.ring = DriverRing(
            _SIZE,
            ram_address=self.ram.address,
            place=place,
            event_idx=True,
            table_descs=_SIZE,
            tables_gpa=_RING_BYTES // 2,
        )
        self.index, self.place, self.channel = _INDEX, place, channel
        assert place.end_gpa <= _RING_BYTES // 2 <= _RING_BYTES - _SIZE * _SIZE * DESC_BYTES
        self._gpas = _RING_BYTES + 2 * PAGE_SIZE_BYTES * np.arange(_SIZE)
        self._lengths = np.full(_SIZE, PAGE_SIZE_BYTES, np.int64)
        address = VringAddress(_INDEX, 0, place.desc_gpa, place.used_gpa, place.avail_gpa)
        channel.start_queue(address, _SIZE, 0, self.kick_fd, self.call_fd)

    def keep_busy(self) -> int:
        """Take what was served and report as much again, so that the queue is always full; how many were served."""
        served = len(self.ring.take_used())
        while self.ring.add_element(self._gpas, self._lengths, writable=True) is not None:
            pass
        if self.ring.publish():
            os.eventfd_write(self.kick_fd, 1)
        return served


def idle(server: ServerProcess, count: int = _IDLE_GUESTS, duration_s: float = _IDLE_S) -> list[Row]:
    """What so many guests cost that do nothing for so long: CPU, and memory of each."""
    with ExitStack() as resources:
        PlayedGuest(server.paths[0], 2 << 20, resources)
        before_bytes = server.resident_bytes
        for number in range(count):
            PlayedGuest(server.paths[number % SOCKETS], 2 << 20, resources)
        each_bytes = (server.resident_bytes - before_bytes) / count
        start_s, cpu_start_s = time.monotonic(), process_cpu_s(server.pid) or 0.0
        time.sleep(duration_s)
        share = ((process_cpu_s(server.pid) or 0.0) - cpu_start_s) / (time.monotonic() - start_s)
    return [
        Row(f"{count} idle guests, CPU", 100 * share, "% of one", at_most=2.0),
        Row(f"{count} idle guests, memory of each", each_bytes / 1024, "KiB", at_most=1024.0),
    ]


def busy(server: ServerProcess, count: int = _BUSY_GUESTS, duration_s: float = _BUSY_S) -> list[Row]:
    """Guests whose queues are always full: what does the one that is served least get, against an equal share?

    As many reports wait at each guest at any time, so by Little's law the one that is served least waits longer than
    its fair share by the same factor.
    """
    with ExitStack() as resources:
        guests = [PlayedGuest(server.paths[0], BUSY_RAM_BYTES, resources) for _ in range(count)]
        served = np.zeros(count, np.int64)
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            served += [guest.keep_busy() for guest in guests]
    name = f"{count} busy guests"
    unfairness = float(served.mean() / served.min()) if served.min() else np.inf
    return [
        Row(f"{name}, reports of 32 blocks", float(served.sum()) / duration_s, "a second"),
        Row(
            f"{name}, equal share / least served",
            unfairness,
            "ratio",
            at_most=2.0,
        ),
    ]


def run() -> Iterator[Row]:
    """Measure; one row a figure, as soon as there is one."""
    with server_process(Path("/tmp")) as server:
        yield from busy(server)
        yield from idle(server)
