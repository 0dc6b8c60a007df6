"""What a guest that sends garbage in a loop takes of a processor, and what it costs the guest beside it.

What it takes is the CPU time of a server that serves nobody else, from when the bad one has used up the burst that
every guest may use at first (allowance.py).

What it costs is measured beside a good guest. Both are served by one loop in one thread, so what the bad one takes is
the loop's time. Whenever the good guest has elements waiting as a round of the loop begins, the round's CPU time is
counted, and how much of it went to the good guest: its share of the loop while it waits. The share beside a bad guest
is compared with the share beside the same guest stopped, in turn, and what is missing is by how much the good guest is
slower.
"""

import functools
import logging
import mmap
import multiprocessing
import os
import signal
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.host.many_guests import BUSY_RAM_BYTES, PlayedGuest
from benchmarks.rows import Row
from pagetide.commands.daemon.event_log import LineFormatter
from pagetide.host.daemon.server import Server
from pagetide.host.device.allowance import SHARE, Use
from pagetide.host.guest.attached import AttachedGuest
from pagetide.machine.live.host_warm_up import warm_up_host
from pagetide.processes import process_cpu_s
from pagetide.virtio.split_ring.ring import DESC_F_INDIRECT, DESC_F_WRITE
from pagetide.virtio.vhost_user.messages import FLAG_NEED_REPLY, Message, Request, encode
from pagetide.virtio.vhost_user.payloads import U64, VRING_ADDRESS, VRING_STATE, MemoryRegion, encode_single_region

SLOWER_AT_MOST = 10.0
TAKEN_AT_MOST = 100 * 1.5 * SHARE
"""Half as much again as its share, for what is done between two readings of the clock: kicks come to 2.4 %."""

_GOOD, _BAD = "good", "bad"
_ROUNDS_S, _GOODS_S, _RESTS = 0, 1, 2  # what is counted, and whether all bad guests have rested
_ROUNDS = 5
_WINDOW_S = 0.6
_TAKEN_S = 4.0
_SETTLE_S = 0.3
_FIRST_S = 2.0  # in which the bad guest uses up what the server lets it have at first
_SIZE = 32
_TABLE_GPA = 40 << 12
_TABLE_DESCS = 1024
_CONNECTIONS = 12
_ASKING_S = 1.0


class _MeasuredServer(Server):
    """Counts, in shared memory, the CPU time of rounds in which the good guest waited, and that guest's part."""

    def __init__(self, counts: npt.NDArray[np.float64]) -> None:
        super().__init__(verify_share=0.0)
        self._counts = counts
        self._waited = False
        count = functools.partial(self._count, self._guests.attempt)
        mock.patch.object(self._guests, "attempt", count).start()  # as long as this process lasts

    def run_once(self, timeout_s: float, *, linger: bool = False) -> None:
        """One round."""
        self._waited = any(guest.name == _GOOD and guest.has_work for guest in self.guests)
        start_s = time.thread_time()
        super().run_once(timeout_s, linger=linger)
        if self._waited:
            self._counts[_ROUNDS_S] += time.thread_time() - start_s

    def _count(self, attempt: Callable[..., None], guest: AttachedGuest, action: Callable[[], Use]) -> None:
        start_s = time.thread_time()
        attempt(guest, action)
        if self._waited and guest.name == _GOOD:
            self._counts[_GOODS_S] += time.thread_time() - start_s


class _NotingServer(Server):
    """Notes, in shared memory, when all guests rest for the first time, or the socket does where they connect."""

    def __init__(self, counts: npt.NDArray[np.float64]) -> None:
        super().__init__(verify_share=0.0)
        self._counts = counts
        self._noted = False

    def run_once(self, timeout_s: float, *, linger: bool = False) -> None:
        """One round."""
        super().run_once(timeout_s, linger=linger)
        if self._noted:
            return
        all_rest = bool(self.guests) and all(map(self._costs.is_resting, self.guests))
        self._noted = all_rest or any(map(self._costs.is_resting, self.sockets))
        self._counts[_RESTS] = self._noted


_Make = Callable[[npt.NDArray[np.float64]], Server]


class Measured(NamedTuple):
    """A server in a process of its own: its folder of sockets, its counts, and the process."""

    folder: Path
    counts: npt.NDArray[np.float64]
    pid: int


def _serve(make: _Make, folder: Path, counts: npt.NDArray[np.float64], stop_fd: int, ready: Event) -> None:
    log = logging.FileHandler(os.devnull)  # what `pagetide serve` writes costs, too
    log.setFormatter(LineFormatter())
    logging.getLogger("pagetide").addHandler(log)
    with make(counts) as server:
        for name in (_GOOD, _BAD):
            server.listen(folder / name)
        ready.set()
        server.run(stop_fd)


@contextmanager
def measured_server(make: _Make = _MeasuredServer) -> Iterator[Measured]:
    """Run a server as long as this lasts."""
    warm_up_host()  # or the guests are charged with the loading of kernels
    with TemporaryDirectory() as folder:
        counts = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.float64, 3)
        stop_fd = os.eventfd(0)
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        process = context.Process(target=_serve, args=(make, Path(folder), counts, stop_fd, ready))
        process.start()
        ready.wait()
        assert process.pid is not None
        try:
            yield Measured(Path(folder), counts, process.pid)
        finally:
            os.eventfd_write(stop_fd, 1)
            process.join()
            os.close(stop_fd)


def _blocks_outside(path: str) -> None:
    """Elements of 1024 blocks outside of memory, the ring always full of them."""
    with ExitStack() as resources:
        guest = PlayedGuest(path, BUSY_RAM_BYTES, resources)
        ram = guest.ram.words.view(np.uint8)
        block = struct.pack("<QIHH", 1 << 40, 4096, DESC_F_WRITE | 1, 0)
        for number in range(_TABLE_DESCS):
            flags = DESC_F_WRITE | (1 if number < _TABLE_DESCS - 1 else 0)
            block = struct.pack("<QIHH", 1 << 40, 4096, flags, number + 1 & 1023)
            ram[_TABLE_GPA + 16 * number :][:16] = np.frombuffer(block, np.uint8)
        head = struct.pack("<QIHH", _TABLE_GPA, 16 * _TABLE_DESCS, DESC_F_INDIRECT, 0)
        ram[guest.place.desc_gpa :][: 16 * _SIZE] = np.frombuffer(head * _SIZE, np.uint8)
        ram[guest.place.avail_gpa + 4 :][: 2 * _SIZE].view("<u2")[:] = np.arange(_SIZE)
        used = ram[guest.place.used_gpa + 2 :][:2].view("<u2")
        avail = ram[guest.place.avail_gpa + 2 :][:2].view("<u2")
        while True:
            avail[0] = int(used[0]) + _SIZE & 0xFFFF
            os.eventfd_write(guest.kick_fd, 1)


def _kicks(path: str) -> None:
    """Kicks without end for an empty ring."""
    with ExitStack() as resources:
        guest = PlayedGuest(path, BUSY_RAM_BYTES, resources)
        while True:
            with suppress(BlockingIOError):
                os.eventfd_write(guest.kick_fd, 1)


def _broken_rings(path: str) -> None:
    """A ring that breaks a rule, a reset, and the same again."""
    with ExitStack() as resources:
        guest = PlayedGuest(path, BUSY_RAM_BYTES, resources)
        ram = guest.ram.words.view(np.uint8)
        ram[guest.place.avail_gpa + 4 :][:2].view("<u2")[0] = 0xFFFF
        ram[guest.place.avail_gpa + 2 :][:2].view("<u2")[0] = 1
        place = guest.place
        while True:
            guest.channel.call(Request.SET_VRING_ERR, U64.pack(guest.index), (guest.call_fd,))
            guest.channel.call(Request.RESET_DEVICE)
            guest.channel.call(Request.SET_VRING_NUM, VRING_STATE.pack(guest.index, _SIZE))
            address = VRING_ADDRESS.pack(guest.index, 0, place.desc_gpa, place.used_gpa, place.avail_gpa, 0)
            guest.channel.call(Request.SET_VRING_ADDR, address)
            guest.channel.call(Request.SET_VRING_KICK, U64.pack(guest.index), (guest.kick_fd,))


def _connections(path: str) -> None:
    """Connections that break the protocol at once and are closed for it."""
    nonsense = struct.pack("<III", 99, 1, 0)
    while True:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(nonsense)
            sock.recv(1)


def _connections_by_the_dozen(path: str) -> None:
    """Many connections that ask without pause for a moment once all are served; they are closed, and the same again."""
    question = encode(Message(Request.GET_FEATURES))
    while True:
        with ExitStack() as resources:
            socks = [resources.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(_CONNECTIONS)]
            for sock in socks:
                sock.connect(path)
                sock.sendall(question)
            for sock in socks:
                sock.recv(1 << 16)
                sock.setblocking(False)
            end_s = time.monotonic() + _ASKING_S
            while time.monotonic() < end_s:
                for sock in socks:
                    with suppress(BlockingIOError, ConnectionError):
                        sock.send(question * 16)
                        sock.recv(1 << 16)


def _refused_messages(path: str) -> None:
    """Requests that are refused, each with a memory file."""
    with ExitStack() as resources:
        guest = PlayedGuest(path, BUSY_RAM_BYTES, resources)
        region = encode_single_region(MemoryRegion(0, BUSY_RAM_BYTES, 0, 0))
        message = encode(Message(Request.ADD_MEM_REG, FLAG_NEED_REPLY, region))
        with socket.socket(fileno=os.dup(guest.channel.fileno())) as sock:
            sock.setblocking(True)
            while True:
                for _ in range(8):
                    socket.send_fds(sock, [message], [guest.ram.fd])
                answers = 0
                while answers < 8 * 20:
                    answers += len(sock.recv(8 * 20 - answers))


GARBAGE_KINDS: dict[str, Callable[[str], None]] = {
    "blocks outside of memory": _blocks_outside,
    "kicks of an empty ring": _kicks,
    "broken rings and resets": _broken_rings,
    "connections closed for nonsense": _connections,
    "connections by the dozen": _connections_by_the_dozen,
    "requests that are refused": _refused_messages,
}


def _in_the_background(sender: Callable[[str], None], path: str) -> None:
    try:
        sender(path)
    except OSError as error:
        print(f"the bad guest ended: {error}", file=sys.stderr)


@contextmanager
def _process_of(sender: Callable[[str], None], path: str) -> Iterator[int]:
    """A process in which this goes on, by its id."""
    process = multiprocessing.get_context("fork").Process(target=_in_the_background, args=(sender, path), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
        assert process.is_alive(), "it sends until it is ended"
    finally:
        process.kill()
        process.join()


def _share(server: Measured, victim: PlayedGuest, settle_s: float = _SETTLE_S) -> float:
    """The good guest's share of the loop while it waits, after a moment to settle."""
    before = server.counts.copy()
    for window_s in (settle_s, _WINDOW_S):
        before = server.counts.copy()
        end_s = time.monotonic() + window_s
        while time.monotonic() < end_s:
            victim.keep_busy()
    rounds_s, goods_s = (server.counts - before)[[_ROUNDS_S, _GOODS_S]]
    assert rounds_s > 0, "the good guest waits in some rounds"
    return float(goods_s / rounds_s)


def slower_percent(server: Measured, kind: str, *, rounds: int = _ROUNDS) -> float:
    """By how many percent the good guest is slower beside a bad one of this kind."""
    alone: list[float] = []
    beside: list[float] = []
    with ExitStack() as resources:
        victim = PlayedGuest(str(server.folder / _GOOD), BUSY_RAM_BYTES, resources)
        bad_pid = resources.enter_context(_process_of(GARBAGE_KINDS[kind], str(server.folder / _BAD)))
        _share(server, victim, _FIRST_S)
        for _ in range(rounds):
            os.kill(bad_pid, signal.SIGSTOP)
            alone.append(_share(server, victim))
            os.kill(bad_pid, signal.SIGCONT)
            beside.append(_share(server, victim))
    return 100 * (1 - statistics.median(beside) / statistics.median(alone))


def taken_percent(kind: str, *, burst_max_s: float = 30.0, taken_s: float = _TAKEN_S) -> float:
    """Percent of a processor that bad guests of this kind take, when they have used up what they may at first.

    Args:
        kind: one of `GARBAGE_KINDS`.
        burst_max_s: how long that is waited for at most, where nobody ever rests.
        taken_s: for how long what they take is measured after that.
    """
    with measured_server(_NotingServer) as server, _process_of(GARBAGE_KINDS[kind], str(server.folder / _BAD)):
        end_s = time.monotonic() + burst_max_s
        while not server.counts[_RESTS] and time.monotonic() < end_s:
            time.sleep(0.01)
        start_s, cpu_start_s = time.monotonic(), process_cpu_s(server.pid) or 0.0
        time.sleep(taken_s)
        return 100 * ((process_cpu_s(server.pid) or 0.0) - cpu_start_s) / (time.monotonic() - start_s)


def run() -> Iterator[Row]:
    """Measure; one or two rows a kind of garbage, as soon as there are any."""
    for kind in GARBAGE_KINDS:
        yield Row(f"{kind}, of a processor", taken_percent(kind), "%", at_most=TAKEN_AT_MOST)
    with measured_server() as server:
        for kind in GARBAGE_KINDS:
            yield Row(f"a guest beside {kind}, slower", slower_percent(server, kind), "%", at_most=SLOWER_AT_MOST)
