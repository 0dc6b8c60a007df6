"""The daemon's side of what it tells by HTTP: the address, the socket that listens there, and the process that answers.

The loop never waits for who asks: the process has the listening socket, and asks at the control socket as others do.
"""

import contextlib
import ipaddress
import logging
import os
import select
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


class Endpoint(NamedTuple):
    """What a process answers.

    Attributes:
        module: which module it runs.
        told: what the log calls what it tells.
        place: where that is, after the address.
        greeting: a line that it is given at its start, by a way that nobody else sees.
    """

    module: str
    told: str
    place: str
    greeting: bytes = b""

    @property
    def missed(self) -> str:
        """What the log says that there is none of."""
        return self.told.removeprefix("the ")


METRICS = Endpoint("pagetide.operate.metrics.endpoint", "metrics", "/metrics")
"""What Prometheus scrapes."""


class EndpointProcess:
    """The process that answers, watched by the daemon's loop and started anew if it ends."""

    def __init__(self, endpoint: Endpoint, listener: socket.socket, control: Path, loop: Waking) -> None:
        """Start it.

        Args:
            endpoint: what it answers.
            listener: where it is asked; closed by `close`.
            control: the daemon's control socket, at which it asks.
            loop: the daemon's.

        Raises:
            OSError: it cannot be started.
        """
        self._endpoint = endpoint
        self._listener, self._control, self._loop = listener, control, loop
        self._start()
        name = listener.getsockname()
        _log.info("%s at http://%s%s", endpoint.told, Address(name[0], name[1]), endpoint.place)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def tell(self, line: bytes) -> None:
        """Give it a line, unless it has too many unread or has ended: then the line is lost."""
        if self._fd >= 0 and self._process.stdin is not None and len(line) <= select.PIPE_BUF:
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), line)

    def close(self) -> None:
        """End it, and listen no more."""
        if self._fd >= 0:
            self._leave()
        self._listener.close()

    def _start(self) -> None:
        fd = self._listener.fileno()
        words = ["-m", self._endpoint.module, str(fd), str(self._control), str(os.getpid())]
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, *words], stdin=subprocess.PIPE, pass_fds=[fd], bufsize=0
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._fd = os.pidfd_open(self._process.pid)
        self._loop.wake_by(self._fd, self._ended)
        if self._endpoint.greeting:
            self.tell(self._endpoint.greeting)

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
        status = self._process.returncode
        if time.monotonic() - self._started_s < STEADY_S:
            _log.error("no more %s: the process that tells it ended with %s", self._endpoint.missed, status)
            return
        _log.error("the process that tells %s ended with %s, and is started anew", self._endpoint.told, status)
        try:
            self._start()
        except OSError as error:
            _log.error("no more %s: %s", self._endpoint.missed, error)
