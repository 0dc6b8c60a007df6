"""What the processes of a live machine say to each other: JSON, one message a line, over a socket pair.

The starting process and its two children share memory for everything that is measured; these messages only tell what
happens.
"""

import contextlib
import socket
from typing import ClassVar, Literal

import msgspec

from pagetide.machine.config import RunConfig


class GuestSetup(msgspec.Struct):
    """What the guest's process gets on its command line; descriptors are inherited.

    With a `socket_path` there is no `socket_fd`: the guest connects there, and again when its device has gone. With a
    `qemu_pid` the device is that QEMU's, and the socket is its qtest.
    """

    config: RunConfig
    control_fd: int
    socket_fd: int
    ram_fd: int
    arena_fd: int
    socket_path: str | None = None
    qemu_pid: int | None = None


class HostSetup(msgspec.Struct):
    """What the host's process gets on its command line; descriptors are inherited.

    Attributes:
        config: the run's settings.
        control_fd: its end of the channel to the starting process.
        socket_fd: the guest's vhost-user connection.
        ledger_fd: the memory file of the ledger.
        ram_fd: the guest's memory, where the host takes frames itself; -1 where it gets it from the guest.
        arena_fd: the file in which the frame table is, or what a balloon's target is set by; otherwise -1.
    """

    config: RunConfig
    control_fd: int
    socket_fd: int
    ledger_fd: int
    ram_fd: int = -1
    arena_fd: int = -1


class Stage(msgspec.Struct, tag=True):
    """What the process is busy with, for people."""

    text: str


class Ready(msgspec.Struct, tag=True):
    """The process can begin."""


class ClockStarted(msgspec.Struct, tag=True):
    """The stream's clock goes on from `stream_s` at this time of CLOCK_MONOTONIC, at most to `until_s`."""

    stream_s: float
    until_s: float
    at_s: float


class PhaseBegan(msgspec.Struct, tag=True):
    """The first operation of a phase is about to run, at this time of CLOCK_MONOTONIC."""

    name: str
    burst: int
    eats: bool
    at_s: float


class PhaseEnded(msgspec.Struct, tag=True):
    """The last operation of a phase has run; none ran later than `behind_s` after it was due."""

    burst: int
    eats: bool
    allocated_bytes: int
    at_s: float
    behind_s: float = 0.0


class Ended(msgspec.Struct, tag=True):
    """The process is done, after this much user and system time; `failure` is a sentence if something went wrong.

    `reporting_cpu_s` is the part of a guest's that went into reporting.
    """

    failure: str | None
    cpu_s: float
    reporting_cpu_s: float | None = None


class Command(msgspec.Struct, tag=True):
    """From the starting process."""

    name: Literal["start", "stop"]


Message = Stage | Ready | ClockStarted | PhaseBegan | PhaseEnded | Ended | Command


class Channel:
    """One end of the socket pair."""

    _decoder: ClassVar[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)

    def __init__(self, sock: socket.socket) -> None:
        """Take over this end."""
        self._socket = sock
        self._received = b""
        self.closed = False

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, message: Message) -> None:
        """Send one message; a peer that is gone is noticed when receiving."""
        # Not closed yet: what it sent before it went is still to be received.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(msgspec.json.encode(message) + b"\n")

    def receive(self) -> list[Message]:
        """Wait until something comes; the messages, none at the end of a partial line, and `closed` set at the end."""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.closed = self.closed or not data
        *lines, self._received = (self._received + data).split(b"\n")
        return [self._decoder.decode(line) for line in lines]
