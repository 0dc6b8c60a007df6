"""What outlives this process: guests' boxes and listening sockets, at a service manager or for a successor that asks.

It all goes by names: `guest-N` is the two ends of a guest's descriptor box, `socket-N` a listening socket, whose path
the kernel knows, `control-N` the one for control requests. A listening socket of any other name is one that the service
manager was told to open. Between accept(2) and the first state of a guest a kill still loses one that is just
connecting; later none.

A guest that another release kept, and this one cannot read, stays with the service manager as it is, and is not served:
that release goes on with it once it is back. Let go are those whose front-end reconnects, without loss, and any whose
front-end speaks, since it would wait for the answer, and QEMU's guest with it.
"""

import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from pagetide.host.daemon.listener import Listener
from pagetide.host.daemon.service_manager import ServiceManager
from pagetide.host.device.kept_state import UnreadableStateError
from pagetide.host.guest.keep import Keep, OtherReleaseError

_GUEST, _SOCKET, _CONTROL = "guest-", "socket-", "control-"

_log = logging.getLogger(__name__)


class Keeper:
    """Keeps guests and sockets of one server.

    Attributes:
        strict: whether one guest that cannot be taken back is an error, and not let go or left.
        left: the connections of guests that are left as they are, by the key of what is kept.
    """

    strict: bool
    left: dict[str, socket.socket]

    def __init__(self, manager: ServiceManager | None = None) -> None:
        """Keep them at a service manager, if there is one that can; otherwise only for who takes over."""
        self._manager = ServiceManager({}) if manager is None else manager
        self._given: dict[str, list[int]] = {}
        self._listeners: dict[str, Listener] = {}
        self._open: dict[str, socket.socket] = {}
        self._names: dict[str, str] = {}
        self._serial = 0
        self.strict = False
        self.left = {}
        self.take(self._manager.given)

    @property
    def outlives(self) -> bool:
        """Whether a service manager holds what is kept, also if this process is killed."""
        return self._manager.keeps_fds

    @property
    def paths(self) -> list[Path]:
        """Where sockets listen that are ours and that nobody has asked for yet."""
        return [Path(path) for path in self._open if not self._names[path].startswith(_CONTROL)]

    def take(self, given: Mapping[str, list[int]]) -> None:
        """Have what was kept, by name, ready for `listener` and `take_guests`; it owns the descriptors from now on."""
        for name, fds in given.items():
            self._serial = max(self._serial, _serial_of(name))
            if name.startswith(_GUEST):
                self._given[name] = fds
                continue
            for fd in fds:
                found = _listening(fd)
                if found is None:
                    _log.warning("a descriptor called %s was handed over, and is of no use here", name)
                    os.close(fd)
                else:
                    path = _key(Path(found.getsockname()))
                    self._open[path], self._names[path] = found, name

    def take_guests(self) -> list[Keep]:
        """What was kept of guests, each the caller's. One that cannot be read is let go or left, which the log says.

        Raises:
            UnreadableStateError: one cannot be read, and `strict` is set.
            OSError: the same.
        """
        keeps: list[Keep] = []
        given, self._given = self._given, {}
        for name, fds in given.items():
            try:
                if len(fds) != 2:
                    for fd in fds:
                        os.close(fd)
                    raise UnreadableStateError(f"of {name} there is not all that was kept")
                keeps.append(Keep.open(name, (fds[0], fds[1])))
            except (UnreadableStateError, OSError) as error:
                if self.strict:
                    for keep in keeps:
                        keep.close()
                    if isinstance(error, OtherReleaseError):
                        error.connection.close()
                    raise
                if not isinstance(error, OtherReleaseError):
                    _log.error("a guest is let go: %s", error)
                    self._manager.let_go(name)
                    continue
                self._leave(name, error)
        return keeps

    def _leave(self, key: str, error: OtherReleaseError) -> None:
        """Leave a guest to the release that can read it, or have its front-end come back to this one."""
        whose, why = {"guest": error.head.name} if error.head.name else {}, str(error)
        self.left[key] = error.connection
        if error.head.comes_back or not self.outlives:
            _log.error("let go%s: %s", ", and will reconnect" * error.head.comes_back, why, extra=whose)
            self.end_left(key)
            return
        _log.error(
            "not served, and left as it is for the release before, which goes on with it if it is installed and "
            "started again: %s",
            why,
            extra=whose,
        )

    def end_left(self, key: str) -> None:
        """Let a guest go that was left."""
        self.left.pop(key).close()
        self._manager.let_go(key)

    def begin(self, connection_fd: int) -> Keep | None:
        """Keep a new guest, which `kept` follows; None if there is no room, which the log says."""
        self._serial += 1
        try:
            return Keep.create(f"{_GUEST}{self._serial}", connection_fd)
        except OSError as error:
            _log.error("a guest cannot be kept for a daemon after this one: %s", error)
            return None

    def kept(self, keep: Keep) -> None:
        """Its first state is written."""
        self._manager.keep(keep.key, keep.box.fds)

    def end(self, keep: Keep) -> None:
        """The guest has gone."""
        self._manager.let_go(keep.key)
        keep.close()

    def control(self, path: Path) -> Listener:
        """Listen at a path for control requests, as `listener`.

        Raises:
            OSError: as Listener.
        """
        return self.listener(path, _CONTROL)

    def listener(self, path: Path, kind: str = _SOCKET) -> Listener:
        """Listen at a path, with the socket that was handed over if there is one.

        Raises:
            OSError: as Listener.
        """
        key = _key(path)
        inherited = self._open.pop(key, None)
        listener = Listener(path, inherited)
        if inherited is None or listener.socket is not inherited:
            self._serial += 1
            self._names[key] = f"{kind}{self._serial}"
            self._manager.keep(self._names[key], [listener.socket.fileno()])
        listener.stays = self.outlives
        self._listeners[key] = listener
        return listener

    def listens_no_more(self, path: Path) -> None:
        """The socket at this path is about to be removed."""
        key = _key(path)
        self._listeners.pop(key).stays = False
        self._manager.let_go(self._names.pop(key))

    def let_go(self, keep: Keep) -> None:
        """The guest is served no more here; `all_kept` and `take_guests` have it again."""
        self._given[keep.key] = [os.dup(fd) for fd in keep.box.fds]
        keep.close()

    def all_kept(self) -> dict[str, list[int]]:
        """All that a successor needs, by name; the descriptors stay this object's.

        Sockets are left at their paths from now on when they are closed here, until `stay`.
        """
        for listener in self._listeners.values():
            listener.stays = True
        sockets = {self._names[path]: [listener.socket.fileno()] for path, listener in self._listeners.items()}
        sockets |= {self._names[path]: [sock.fileno()] for path, sock in self._open.items()}
        return sockets | self._given

    def stay(self) -> None:
        """Nobody took over."""
        for listener in self._listeners.values():
            listener.stays = self.outlives

    def close(self) -> None:
        """Close what nobody has asked for."""
        for sock in self._open.values():
            sock.close()
        for fds in self._given.values():
            for fd in fds:
                os.close(fd)
        for connection in self.left.values():
            connection.close()
        self._open, self._given, self.left = {}, {}, {}


Listen = Callable[[Path], Listener]
"""How a socket comes to listen at a path."""


def _key(path: Path) -> str:
    return str(path.parent.resolve() / path.name)


def _serial_of(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _listening(fd: int) -> socket.socket | None:
    """The listening Unix socket that this is, if it is one with a path."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return None
    found = socket.socket(fileno=fd)
    listens = found.family == socket.AF_UNIX and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    path = found.getsockname() if listens else ""
    if not isinstance(path, str) or not path:
        found.detach()
        return None
    found.setblocking(False)
    return found
