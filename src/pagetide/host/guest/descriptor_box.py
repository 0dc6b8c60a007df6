"""A box of descriptors that outlives its owner: messages with descriptors that wait in a socket pair.

Whoever holds both ends, a service manager say, holds all that is in it, whatever it is and however often it changed,
and need not be told. Each descriptor is under a number. A descriptor is in the box from the moment that one system call
puts it there, and looking does not take it out (MSG_PEEK); so a box is whole whenever its owner is killed.
"""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Collection

_NUMBER = struct.Struct("<q")
_ROOM = socket.CMSG_SPACE(array.array("i").itemsize)
_SEND_BUFFER_BYTES = 1 << 20


class DescriptorBox:
    """One box.

    Attributes:
        fds: the two ends; the box owns them.
    """

    fds: tuple[int, int]

    def __init__(self, fds: tuple[int, int] | None = None) -> None:
        """Make an empty box, or open one by its ends, in any order, which are closed if there is an error.

        Raises:
            OSError: these are no ends of a box, or there is no room.
        """
        if fds is None:
            self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._in.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self._numbers: list[int] = []
        else:
            ends = [socket.socket(fileno=fd) for fd in fds]
            if any(end.family != socket.AF_UNIX or end.type != socket.SOCK_SEQPACKET for end in ends):
                for end in ends:
                    end.close()
                raise OSError("these are no ends of a descriptor box")
            for end in ends:
                end.setblocking(False)
            ends.sort(key=_is_empty, reverse=True)
            self._in, self._out = ends
            self._numbers = []
        self._in.setblocking(False)
        self._out.setblocking(False)
        self.fds = (self._in.fileno(), self._out.fileno())
        self._next = 0

    def put(self, fd: int) -> int:
        """Put a descriptor in, which stays the caller's too; its number.

        Raises:
            OSError: there is no room.
        """
        number = self._next
        self._send(number, fd)
        self._next += 1
        return number

    def keep_only(self, wanted: Collection[int]) -> None:
        """Take out all but these. Whoever opens the box after a kill amid this finds these, and maybe others.

        Raises:
            OSError: there is no room for a moment's copy; nothing is missing.
        """
        old = len(self._numbers)
        if all(number in wanted for number in self._numbers):
            return
        keep = [number for number in self._numbers if number in wanted]
        for _ in range(old):  # each is put in again behind, if wanted, before it is taken out in front
            fd = self._look()[1]
            try:
                if self._numbers[0] in keep:
                    self._send(self._numbers[0], fd)
            finally:
                os.close(fd)
            self._out.recv(_NUMBER.size)  # without room for the descriptor, which the kernel closes
            del self._numbers[0]

    def open_all(self) -> dict[int, int]:
        """A descriptor of everything in it, by number, the caller's; all stays in the box. To be called once.

        Raises:
            OSError: this process can have no more, or what is there is no box's.
        """
        opened: dict[int, int] = {}
        try:
            # One cannot look behind the first message: each is put in again behind, and then taken out in front.
            end = -1 - int.from_bytes(os.urandom(4), "little")
            self._in.send(_NUMBER.pack(end))
            while (found := self._look_at_number()) != end:
                if found >= 0:
                    number, fd = self._look()
                    if number in opened:  # its last owner was killed amid `keep_only`
                        os.close(fd)
                    else:
                        opened[number] = fd
                        self._send(number, fd)
                self._out.recv(_NUMBER.size)
            self._out.recv(_NUMBER.size)
        except (OSError, struct.error) as error:
            for fd in opened.values():
                os.close(fd)
            raise OSError(f"a box of descriptors cannot be opened: {error}") from error
        self._next = max(opened, default=-1) + 1
        return opened

    def close(self) -> None:
        """Close our ends; what is in it lives on if somebody else holds them."""
        self._in.close()
        self._out.close()

    def _send(self, number: int, fd: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self._in.sendmsg([_NUMBER.pack(number)], rights)
        self._numbers.append(number)

    def _look_at_number(self) -> int:
        return int(_NUMBER.unpack(self._out.recv(_NUMBER.size, socket.MSG_PEEK))[0])

    def _look(self) -> tuple[int, int]:
        """The number and a descriptor of what is in front."""
        data, ancillary, _, _ = self._out.recvmsg(_NUMBER.size, _ROOM, socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if len(fds) != 1:
            with contextlib.suppress(OSError):
                for fd in fds:
                    os.close(fd)
            raise OSError("this process has no room for a descriptor that was kept (ulimit -n)")
        return int(_NUMBER.unpack(data)[0]), fds[0]


def _is_empty(end: socket.socket) -> bool:
    try:
        return not end.recv(_NUMBER.size, socket.MSG_PEEK)
    except BlockingIOError:
        return True
