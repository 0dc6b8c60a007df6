"""How a running daemon gives everything to its successor, over its control socket.

The successor asks (`{"command": "take-over"}`); from then on the connection carries one line of JSON, with the version
of what is kept and the names of the descriptors, and then the descriptors themselves, some at a time. The old daemon
has let go of its guests by then, and waits: at the word that all is taken it ends, and at anything else, or after a
while, it takes back what is kept, as after a kill, and goes on. So whoever fails, one of the two serves.
"""

import array
import contextlib
import os
import select
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from pagetide.host.device.kept_state import VERSION

FDS_MAX = 253
"""Most descriptors of one message (SCM_MAX_FD)."""

TAKE_MAX_S = 20.0
"""How long a successor has to take all that it is given."""

_REQUEST = b'{"command": "take-over"}\n'
_TAKEN = b"taken\n"
_YOURS = b"yours\n"
_FD_BYTES = array.array("i").itemsize
_LINE_BYTES_MAX = 1 << 20


class HandoverError(Exception):
    """Nothing was taken over; the message says why."""


class _Offer(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    names: list[str]
    pid: int
    options: dict[str, str] = {}


class _Refusal(msgspec.Struct):
    error: str


def give(sock: socket.socket, kept: Mapping[str, list[int]], options: Mapping[str, str]) -> None:
    """Give descriptors by name to the successor at the other end, and wait for its word that it has taken over.

    Args:
        sock: the successor's connection.
        kept: the descriptors.
        options: what this daemon was started with, for `Predecessor.other_options`.

    Raises:
        HandoverError: it has not.
    """
    sock.settimeout(TAKE_MAX_S)
    pairs = [(name, fd) for name, fds in kept.items() for fd in fds]
    try:
        sock.sendall(
            msgspec.json.encode(_Offer(VERSION, [name for name, _ in pairs], os.getpid(), dict(options))) + b"\n"
        )
        for batch in _batches([fd for _, fd in pairs]):
            sock.sendmsg(
                [b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", batch))], socket.MSG_NOSIGNAL
            )
        answer = sock.recv(len(_TAKEN), socket.MSG_WAITALL)
    except OSError as error:
        raise HandoverError(f"the successor does not take over: {error}") from error
    if answer != _TAKEN:
        raise HandoverError("the successor has hung up and not taken over")
    with contextlib.suppress(OSError):
        sock.sendall(_YOURS)


class Predecessor:
    """The running daemon, as its successor sees it.

    Attributes:
        kept: what it gave, by name; the caller's.
        options: what it was started with, by name.
    """

    kept: dict[str, list[int]]
    options: dict[str, str]

    def __init__(self, control: Path) -> None:
        """Ask the daemon of this control socket for everything.

        Raises:
            HandoverError: it gives nothing.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TAKE_MAX_S)
        self._pidfd = -1
        self.kept = {}
        fds: list[int] = []
        try:
            self._socket.connect(str(control))
            self._socket.sendall(_REQUEST)
            offer = self._read_offer()
            self._pidfd = os.pidfd_open(offer.pid)  # SO_PEERCRED would name who first listened
            while len(fds) < len(offer.names):
                fds += self._read_fds()
        except OSError as error:
            self._give_up(fds)
            raise HandoverError(f"no daemon gives its guests at {control}: {error}") from error
        except HandoverError:
            self._give_up(fds)
            raise
        self.options = offer.options
        for name, fd in zip(offer.names, fds, strict=True):
            self.kept.setdefault(name, []).append(fd)

    def other_options(self, ours: Mapping[str, str]) -> list[str]:
        """What it was started with and we are not, in words; options that it did not tell of are not compared."""
        return [
            f"{name} is {ours[name]}, and was {theirs}"
            for name, theirs in self.options.items()
            if name in ours and ours[name] != theirs
        ]

    def taken(self) -> None:
        """All is taken: it may end, and touches nothing any more.

        Raises:
            HandoverError: it did not wait so long, and goes on.
        """
        answer = b""
        with contextlib.suppress(OSError):
            self._socket.sendall(_TAKEN)
            answer = self._socket.recv(len(_YOURS), socket.MSG_WAITALL)
        try:
            if answer != _YOURS and not select.select([self._pidfd], [], [], 0)[0]:
                raise HandoverError("the daemon before this one has not waited, and goes on")
        finally:
            self.close()

    def close(self) -> None:
        """Have it go on, unless all was `taken`; may be repeated."""
        self._socket.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _read_offer(self) -> _Offer:
        line = b""
        while not line.endswith(b"\n"):
            some = self._socket.recv(1)  # not beyond the line, where descriptors are
            if not some or len(line) > _LINE_BYTES_MAX:
                raise HandoverError("the daemon has hung up")
            line += some
        try:
            refusal = msgspec.json.decode(line, type=_Refusal)
        except msgspec.MsgspecError:
            pass
        else:
            if refusal.error:
                raise HandoverError(f"the daemon keeps its guests: {refusal.error}")
        try:
            offer = msgspec.json.decode(line, type=_Offer)
        except msgspec.MsgspecError as error:
            raise HandoverError(f"the daemon is of another version, and keeps its guests: {error}") from error
        if offer.version != VERSION:
            raise HandoverError(
                f"the daemon keeps its guests: what it would give is in version {offer.version}, and this one reads "
                f"version {VERSION}"
            )
        return offer

    def _read_fds(self) -> list[int]:
        data, ancillary, flags, _ = self._socket.recvmsg(
            1, socket.CMSG_SPACE(FDS_MAX * _FD_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % _FD_BYTES])
        if not data or not fds or flags & socket.MSG_CTRUNC:
            self._give_up(list(fds))
            raise HandoverError(
                "the daemon has hung up" if not data else "there is no room for descriptors (ulimit -n)"
            )
        return list(fds)

    def _give_up(self, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        self.close()


def _batches(fds: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(fds), FDS_MAX):
        yield fds[start : start + FDS_MAX]
