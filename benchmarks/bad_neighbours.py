"""What a guest that sends garbage in a loop costs the guest beside it.

Both are served by one loop of one process, so what the bad one takes is the loop's time. The good guest's queue is
always full: the loop never idles, and reports served for each second *of the server's own CPU time* are what is left
of the loop for the good guest. That is counted in turn with the bad guest stopped and with it at work, some times over,
and the medians are compared; the burst that every guest may use at first (host/allowance.py) is over by then. How fast
the bad guest's own process runs, and what other load there is on the machine, falls out of it.
"""

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
from pathlib import Path

import numpy as np

from benchmarks.many_guests import BUSY_RAM_BYTES, GARBAGE, PlayedGuest, ServerProcess, server_process
from benchmarks.rows import Row
from pagetide.linux import process_cpu_s
from pagetide.virtio.ring import DESC_F_INDIRECT, DESC_F_WRITE
from pagetide.virtio.vhost_user_messages import (
    FLAG_NEED_REPLY,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    MemoryRegion,
    Message,
    Request,
    encode,
    encode_single_region,
)

SLOWER_AT_MOST = 10.0
_ROUNDS = 5
_WINDOW_S = 0.6
_SETTLE_S = 0.3
_FIRST_S = 2.0  # in which the bad guest uses up what the server lets it have at first
_SIZE = 32
_TABLE_GPA = 40 << 12
_TABLE_DESCS = 1024


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


_GARBAGE: dict[str, Callable[[str], None]] = {
    "blocks outside of memory": _blocks_outside,
    "kicks of an empty ring": _kicks,
    "broken rings and resets": _broken_rings,
    "connections closed for nonsense": _connections,
    "requests that are refused": _refused_messages,
}


def _in_the_background(sender: Callable[[str], None], path: str) -> None:
    try:
        sender(path)
    except OSError as error:
        print(f"the bad guest ended: {error}", file=sys.stderr)


@contextmanager
def _bad_guest(sender: Callable[[str], None], path: str) -> Iterator[int]:
    """The process of a bad guest at work, by its id."""
    process = multiprocessing.get_context("fork").Process(target=_in_the_background, args=(sender, path), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
        assert process.is_alive(), "it sends until it is ended"
    finally:
        process.kill()
        process.join()


def _served_a_cpu_second(server: ServerProcess, victim: PlayedGuest, settle_s: float = _SETTLE_S) -> float:
    """Reports served for each second of the server's CPU time, after a moment to settle."""
    for window_s in (settle_s, _WINDOW_S):
        served, cpu_start_s = 0, process_cpu_s(server.pid) or 0.0
        end_s = time.monotonic() + window_s
        while time.monotonic() < end_s:
            served += victim.keep_busy()
    cpu_s = (process_cpu_s(server.pid) or 0.0) - cpu_start_s
    assert cpu_s > 0, "a full queue keeps the server busy"
    return served / cpu_s


def _slower(server: ServerProcess, sender: Callable[[str], None]) -> float:
    """By how many percent the good guest is slower beside this bad one."""
    alone, beside = [], []
    with ExitStack() as resources:
        victim = PlayedGuest(server.path, BUSY_RAM_BYTES, resources)
        bad_pid = resources.enter_context(_bad_guest(sender, server.path + GARBAGE))
        _served_a_cpu_second(server, victim, _FIRST_S)
        for _ in range(_ROUNDS):
            os.kill(bad_pid, signal.SIGSTOP)
            alone.append(_served_a_cpu_second(server, victim))
            os.kill(bad_pid, signal.SIGCONT)
            beside.append(_served_a_cpu_second(server, victim))
    return 100 * (1 - statistics.median(beside) / statistics.median(alone))


def run() -> list[Row]:
    """Measure; one row a kind of garbage."""
    with server_process(Path("/tmp")) as server:
        return [
            Row(f"a guest beside {name}, slower", _slower(server, sender), "%", at_most=SLOWER_AT_MOST)
            for name, sender in _GARBAGE.items()
        ]
