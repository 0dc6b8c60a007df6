"""The service manager that started this daemon, systemd perhaps: what it is told, and what it keeps for a successor.

The protocol is sd_notify(3) and sd_listen_fds(3): datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET
names, with descriptors beside them, and descriptors from 3 on at start. The libraries there are for it cannot send
descriptors without C, or pull in all of libsystemd, for these few lines.
"""

import array
import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence

FDS_FIRST = 3
"""The first descriptor that a service manager hands over (SD_LISTEN_FDS_START)."""

_SEND_MAX_S = 2.0
_ENVIRONMENT = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "FDSTORE",
)

_log = logging.getLogger(__name__)


class ServiceManager:
    """What there is of one; without one, telling it does nothing.

    Attributes:
        keeps_fds: whether it can keep descriptors.
        watchdog_s: how often it wants to hear that all is well; 0 for never.
        given: descriptors that it has kept, or opened for us, by name; the caller's.
    """

    keeps_fds: bool
    watchdog_s: float
    given: dict[str, list[int]]

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Find out by the environment; `forget_environment` hides it from child processes."""
        self._socket: socket.socket | None = None
        self._status = ""
        self._due_s = 0.0
        path = environment.get("NOTIFY_SOCKET", "")
        if path.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(_SEND_MAX_S)  # one that hangs must not hold up guests for longer
            self._address = "\0" + path[1:] if path[0] == "@" else path
        ours = str(os.getpid())
        watched = environment.get("WATCHDOG_PID", ours) == ours and self._socket is not None
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 / 2 if watched and usec.isdecimal() else 0.0
        # How many there is room for. systemd says it since version 254; our unit file says it for those before.
        room = environment.get("FDSTORE", "")
        self.keeps_fds = self._socket is not None and room.isdecimal() and int(room) > 0
        self.given = _given(environment) if environment.get("LISTEN_PID") == ours else {}

    def tell(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send lines, and descriptors beside them; whether they have gone."""
        if self._socket is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg(["\n".join(lines).encode()], rights, socket.MSG_NOSIGNAL, self._address)
        except OSError as error:
            _log.error("the service manager cannot be told %s: %s", lines[0], error)
            return False
        return True

    def ready(self) -> None:
        """All sockets are there."""
        self.tell("READY=1", f"MAINPID={os.getpid()}")

    def stopping(self) -> None:
        """The daemon is about to end."""
        self.tell("STOPPING=1")

    def status(self, text: str) -> None:
        """What it does, in a few words, for `systemctl status`."""
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")

    def alive(self) -> None:
        """All is well; sent when the next such word is due."""
        now_s = time.monotonic()
        if self.watchdog_s and now_s >= self._due_s:
            self._due_s = now_s + self.watchdog_s
            self.tell("WATCHDOG=1")

    def until_due_s(self, timeout_s: float) -> float:
        """The time to sleep, if this long was meant (for ever if negative), until `alive` must be called."""
        if not self.watchdog_s:
            return timeout_s
        left_s = max(0.0, self._due_s - time.monotonic())
        return left_s if timeout_s < 0 else min(timeout_s, left_s)

    def keep(self, name: str, fds: Sequence[int]) -> bool:
        """Have descriptors kept for a successor under a name, also if this process is killed; whether that was asked.

        They are kept until `let_go`, also if their peer hangs up (FDPOLL=0, systemd 246): a successor finds that out.
        """
        assert ":" not in name
        return self.keeps_fds and self.tell("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", fds=fds)

    def let_go(self, name: str) -> None:
        """Have the descriptors of this name kept no more."""
        if self.keeps_fds:
            self.tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def close(self) -> None:
        """Tell it nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.keeps_fds = False


def forget_environment() -> None:
    """Hide the service manager from child processes."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)


def _given(environment: Mapping[str, str]) -> dict[str, list[int]]:
    """Descriptors by name, closed on exec from now on; those without a name are called `unknown`, as systemd does."""
    count = environment.get("LISTEN_FDS", "")
    fds = range(FDS_FIRST, FDS_FIRST + (int(count) if count.isdecimal() else 0))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    given: dict[str, list[int]] = {}
    for place, fd in enumerate(fds):
        with contextlib.suppress(OSError):  # one that is not there after all
            os.set_inheritable(fd, False)
            given.setdefault(names[place] if place < len(names) and names[place] else "unknown", []).append(fd)
    return given
