"""The daemon's side of its metrics: the address, the socket that listens there, and the process that answers."""

import ipaddress
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

STEADY_S = 10.0
"""A process that ended sooner is not started again: the next one would end, too."""

_BACKLOG = 16

_log = logging.getLogger(__name__)


class Address(NamedTuple):
    """Where to answer.

    Attributes:
        host: an address in numbers.
        port: 0 for any that is free.
    """

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str) -> Address:
    """An address such as 127.0.0.1:9464 or [::1]:9464.

    Raises:
        ValueError: it is none; the message says what one is.
    """
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(host)
        number = int(port) if port.isascii() and port.isdecimal() else -1
        if not 0 <= number < 1 << 16:
            raise ValueError("no port")
    except ValueError:
        raise ValueError(f"an address in numbers and a port, such as 127.0.0.1:9464, not {text!r}") from None
    return Address(host, number)


def listen(address: Address, *, beside_another: bool) -> socket.socket:
    """A socket that listens there.

    A successor listens beside its predecessor until that has gone, so the port is shared; but nobody else who comes
    later is let in, and nobody is joined unless that is wanted.

    Raises:
        OSError: the address cannot be had.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, beside_another)
        sock.bind(address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # for a successor, who asks for it before it binds
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


Then = Callable[[], None]


class Waking(Protocol):
    """The daemon's loop."""

    def wake_by(self, fd: int, then: Then) -> None:
        """Call something whenever a descriptor is readable."""

    def no_wake_by(self, fd: int) -> None:
        """Call it no more."""


class MetricsProcess:
    """The process that answers scrapes, watched by the daemon's loop and started anew if it ends."""

    def __init__(self, listener: socket.socket, control: Path, loop: Waking) -> None:
        """Start it.

        Args:
            listener: where scrapes come; closed by `close`.
            control: the daemon's control socket, at which it asks.
            loop: the daemon's.

        Raises:
            OSError: it cannot be started.
        """
        self._listener, self._control, self._loop = listener, control, loop
        self._start()
        name = listener.getsockname()
        _log.info("metrics at http://%s/metrics", Address(name[0], name[1]))

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def close(self) -> None:
        """End it, and listen no more."""
        if self._fd >= 0:
            self._leave()
        self._listener.close()

    def _start(self) -> None:
        fd = self._listener.fileno()
        words = ["-m", "pagetide.operate.metrics.endpoint", str(fd), str(self._control), str(os.getpid())]
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, *words], stdin=subprocess.PIPE, pass_fds=[fd]
        )
        self._fd = os.pidfd_open(self._process.pid)
        self._loop.wake_by(self._fd, self._ended)

    def _leave(self) -> None:
        self._loop.no_wake_by(self._fd)
        os.close(self._fd)
        self._fd = -1
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()

    def _ended(self) -> None:
        """It ended by itself."""
        self._leave()
        if time.monotonic() - self._started_s < STEADY_S:
            _log.error("no more metrics: the process that tells them ended with %s", self._process.returncode)
            return
        _log.error("the process that tells metrics ended with %s, and is started anew", self._process.returncode)
        try:
            self._start()
        except OSError as error:
            _log.error("no more metrics: %s", error)
