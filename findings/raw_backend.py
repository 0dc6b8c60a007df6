"""A vhost-user back-end for a balloon that discards nothing and tells all: raw_backend.py SOCKET FEATURES.

Every message and every element of a queue is a line of its output. It answers what is asked (vhost-user protocol,
"Front-end message types"), acknowledges, and gives the elements of split rings back. For one connection.
"""
# ruff: noqa: T201

import mmap
import os
import select
import socket
import stat
import struct
import sys
from pathlib import Path

NAMES = {
    1: "GET_FEATURES", 2: "SET_FEATURES", 3: "SET_OWNER", 4: "RESET_OWNER", 5: "SET_MEM_TABLE", 8: "SET_VRING_NUM",
    9: "SET_VRING_ADDR", 10: "SET_VRING_BASE", 11: "GET_VRING_BASE", 12: "SET_VRING_KICK", 13: "SET_VRING_CALL",
    14: "SET_VRING_ERR", 15: "GET_PROTOCOL_FEATURES", 16: "SET_PROTOCOL_FEATURES", 17: "GET_QUEUE_NUM",
    18: "SET_VRING_ENABLE", 21: "SET_BACKEND_REQ_FD", 24: "GET_CONFIG", 25: "SET_CONFIG", 34: "RESET_DEVICE",
    36: "GET_MAX_MEM_SLOTS", 37: "ADD_MEM_REG", 38: "REM_MEM_REG", 39: "SET_STATUS", 40: "GET_STATUS",
}  # fmt: skip
VERSION_1, PROTOCOL_FEATURES = 1 << 32, 1 << 30
# MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS
PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 16
CONFIG = struct.pack("<4I", 256, 0, 2, 0)  # a target of 1 MiB, and a round of free page hints with id 2
WRITE = 2  # of a descriptor: the device may write


def kind_of(fd: int) -> str:
    """What a descriptor is, as /proc names it."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(fileno=os.dup(fd)) as end:
            return f"{end.family.name} {end.type.name}"
    return str(Path(f"/proc/self/fd/{fd}").readlink()).split(" ")[0]


class Backend:
    """One connection."""

    def __init__(self, connection: socket.socket, features: int) -> None:
        """Offer these features."""
        self.connection, self.features, self.status = connection, features | VERSION_1 | PROTOCOL_FEATURES, 0
        self.regions: list[tuple[int, int, int, int, mmap.mmap]] = []
        self.sizes: dict[int, int] = {}
        self.bases: dict[int, int] = {}
        self.addresses: dict[int, tuple[int, int, int]] = {}
        self.kicks: dict[int, int] = {}
        self.calls: dict[int, int] = {}

    def run(self) -> None:
        """Serve until the front-end goes."""
        while True:
            ready, _, _ = select.select([self.connection, *self.kicks.values()], [], [])
            for queue, fd in list(self.kicks.items()):
                if fd in ready:
                    os.read(fd, 8)
                    self.serve(queue)
            if self.connection in ready and not self.message():
                return

    def message(self) -> bool:
        """Take one message; whether there was one."""
        head, fds, _, _ = socket.recv_fds(self.connection, 12, 8)
        if len(head) < 12:
            return False
        request, flags, size = struct.unpack("<3I", head)
        payload = self.connection.recv(size, socket.MSG_WAITALL) if size else b""
        name = NAMES.get(request, str(request))
        numbers = struct.unpack(f"<{size // 8}Q", payload[: size // 8 * 8])
        if name.startswith(("SET_VRING_NUM", "SET_VRING_BASE", "GET_VRING_BASE", "SET_VRING_ENABLE")):
            numbers = struct.unpack("<2I", payload)
        print(name, *(f"{number:#x}" for number in numbers), *(f"<{kind_of(fd)}>" for fd in fds), flush=True)
        reply = self.take(name, payload, numbers, fds)
        if reply is None and flags & 8:
            reply = struct.pack("<Q", 0)
        if reply is not None:
            self.connection.sendall(struct.pack("<3I", request, 5, len(reply)) + reply)
        return True

    def take(self, name: str, payload: bytes, numbers: tuple[int, ...], fds: list[int]) -> bytes | None:
        """Do what a message says; the answer if it asks something."""
        if name in ("SET_VRING_NUM", "SET_VRING_BASE"):
            (self.sizes if name == "SET_VRING_NUM" else self.bases)[numbers[0]] = numbers[1]
        elif name == "SET_VRING_ADDR":
            self.addresses[numbers[0] & 0xFF] = (numbers[1], numbers[3], numbers[2])
        elif name in ("SET_VRING_KICK", "SET_VRING_CALL") and fds:
            (self.kicks if name == "SET_VRING_KICK" else self.calls)[numbers[0] & 0xFF] = fds[0]
        elif name == "ADD_MEM_REG":
            self.add(*numbers[1:5], fds[0])
        elif name == "SET_MEM_TABLE":
            self.regions = []
            for index, fd in enumerate(fds):
                self.add(*numbers[1 + 4 * index : 5 + 4 * index], fd)
        elif name == "SET_STATUS":
            self.status = numbers[0]
        elif name == "GET_VRING_BASE":
            self.kicks.pop(numbers[0], None)
            return struct.pack("<2I", numbers[0], self.bases.get(numbers[0], 0))
        elif name == "GET_CONFIG":
            offset, size = struct.unpack_from("<2I", payload)
            return payload[:12] + CONFIG[offset : offset + size].ljust(size, b"\0")
        answers = {"GET_FEATURES": self.features, "GET_PROTOCOL_FEATURES": PROTOCOL, "GET_QUEUE_NUM": 8,
                   "GET_MAX_MEM_SLOTS": 32, "GET_STATUS": self.status}  # fmt: skip
        return struct.pack("<Q", answers[name]) if name in answers else None

    def add(self, guest: int, size: int, user: int, offset: int, fd: int) -> None:
        """Map a region of the guest's memory."""
        self.regions.append((guest, size, user, offset, mmap.mmap(fd, offset + size)))

    def at(self, user: int) -> tuple[mmap.mmap, int]:
        """Where something of a ring is, by its address in the front-end."""
        for _, size, start, offset, mapping in reversed(self.regions):
            if start <= user < start + size:
                return mapping, user - start + offset
        raise SystemExit(f"nothing at {user:#x}")

    def serve(self, queue: int) -> None:
        """Give back what is available, and say what it was."""
        (table, desc), (avail, available), (used, place) = map(self.at, self.addresses[queue])
        size, base = self.sizes[queue], self.bases.get(queue, 0)
        while base != struct.unpack_from("<H", avail, available + 2)[0]:
            (head,) = struct.unpack_from("<H", avail, available + 4 + 2 * (base % size))
            index, follows, parts = head, True, []
            while follows:
                address, length, flags, after = struct.unpack_from("<QIHH", table, desc + 16 * index)
                parts.append(f"{'w' if flags & WRITE else 'r'} {address:#x} {length}")
                index, follows = after, bool(flags & 1)
            print("queue", queue, *parts, flush=True)
            struct.pack_into("<2I", used, place + 4 + 8 * (base % size), head, 0)
            base = base + 1 & 0xFFFF
            struct.pack_into("<H", used, place + 2, base)
        self.bases[queue] = base
        if queue in self.calls:
            os.write(self.calls[queue], struct.pack("<Q", 1))


with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(1)
    print("listening", flush=True)
    Backend(listener.accept()[0], int(sys.argv[2], 0)).run()
