"""The host: one loop that serves many guests, each over its own vhost-user connection.

Guests connect to a socket that the server listens on, or are handed over as connected sockets. What one of them does
wrong ends its own connection and nobody else's. The loop first takes what has come on any descriptor, then gives each
guest with elements waiting one bounded turn; while some have, it does not sleep.
"""

import contextlib
import functools
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pagetide.host.attached_guest import AttachedGuest, GuestGoneError
from pagetide.host.fd_events import READABLE, FdEvents
from pagetide.host.ledger import Ledger

GUESTS_MAX = 1024
"""Most guests at once; more wait to be accepted."""

_BACKLOG = 64

_log = logging.getLogger(__name__)


class _Listener:
    """A listening socket at a path."""

    def __init__(self, path: Path) -> None:
        _remove_stale(path)
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.bind(str(path))
            self._identity = _identity(path)
            path.chmod(0o600)  # nobody can connect before the listen
            self.socket.listen(_BACKLOG)
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


class Server:
    """Serves guests. Use as a context manager, or call `close`."""

    def __init__(
        self, *, verify_share: float = 1.0, on_guest_gone: Callable[[AttachedGuest, str], None] | None = None
    ) -> None:
        """Start without guests.

        Args:
            verify_share: share of the elements whose discarding is read back, from 0 to 1.
            on_guest_gone: called with each guest that has gone and a sentence why, after all it had is given back.
        """
        self._verify_share = verify_share
        self._on_guest_gone = on_guest_gone
        self._events = FdEvents()
        self._listeners: list[_Listener] = []
        self._listening = True
        self._guests: dict[AttachedGuest, None] = {}
        self._working: dict[AttachedGuest, None] = {}  # these two are sets that keep their order
        self._accepted = 0
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def guests(self) -> tuple[AttachedGuest, ...]:
        """Those attached now."""
        return tuple(self._guests)

    def listen(self, path: str | os.PathLike[str]) -> None:
        """Accept guests at a socket of this path, which only this user may connect to. A dead server's is replaced.

        Raises:
            OSError: the path cannot be had, or somebody listens there.
        """
        listener = _Listener(Path(path))
        self._listeners.append(listener)
        if self._listening:
            self._watch_listener(listener)

    def adopt(self, sock: socket.socket, *, ledger: Ledger | None = None, name: str | None = None) -> AttachedGuest:
        """Serve the guest at the other end of a connected socket, which is the server's from now on.

        Args:
            sock: a Unix stream socket.
            ledger: where to account for it, for example in shared memory; otherwise a new one.
            name: what the log calls it.
        """
        self._accepted += 1
        guest = AttachedGuest(
            name or f"guest {self._accepted}",
            sock,
            Ledger() if ledger is None else ledger,
            self._events,
            self._note_work,
            verify_share=self._verify_share,
        )
        self._events.watch(guest.fileno(), READABLE, functools.partial(self._attempt, guest, guest.talk))
        self._guests[guest] = None
        _log.info("%s attached", guest.name)
        return guest

    def run_once(self, timeout_s: float) -> None:
        """Wait until something happens, but at most this long (for ever if negative), and deal with it."""
        self._events.wait(0 if self._working else timeout_s)
        turns = tuple(self._working)
        self._working.clear()
        for guest in turns:
            if guest.has_work:
                self._attempt(guest, guest.turn)
            if guest.has_work:
                self._note_work(guest)

    def run(self, stop_fd: int) -> None:
        """Serve until this descriptor is readable, or `stop` was called."""
        self._stopped = False
        self._events.watch(stop_fd, READABLE, self.stop)
        try:
            while not self._stopped:
                self.run_once(-1)
        finally:
            self._events.unwatch(stop_fd)

    def stop(self) -> None:
        """End `run` once what has come is dealt with; for `on_guest_gone`, say."""
        self._stopped = True

    def close(self) -> None:
        """Let all guests go and remove the sockets."""
        for guest in self.guests:
            self._release(guest)
        for listener in self._listeners:
            self._events.unwatch(listener.socket.fileno())
            listener.close()
        self._listeners.clear()
        self._events.close()

    def _note_work(self, guest: AttachedGuest) -> None:
        self._working[guest] = None

    def _attempt(self, guest: AttachedGuest, action: Callable[[], None]) -> None:
        try:
            action()
        except GuestGoneError as error:
            reason = str(error)
            _log.log(logging.INFO if reason == "disconnected" else logging.ERROR, "%s: %s", guest.name, reason)
            self._release(guest)
            if self._on_guest_gone is not None:
                self._on_guest_gone(guest, reason)

    def _release(self, guest: AttachedGuest) -> None:
        self._events.unwatch(guest.fileno())
        guest.close()
        assert not guest.has_work
        del self._guests[guest]
        self._listen_again()

    def _accept(self, listener: _Listener) -> None:
        try:
            sock, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            _log.error("no more guests can be accepted until one goes: %s", error)
            self._listen_no_more()
            return
        self.adopt(sock)
        if len(self._guests) >= GUESTS_MAX:
            self._listen_no_more()

    def _watch_listener(self, listener: _Listener) -> None:
        self._events.watch(listener.socket.fileno(), READABLE, functools.partial(self._accept, listener))

    def _listen_no_more(self) -> None:
        self._listening = False
        for listener in self._listeners:
            self._events.unwatch(listener.socket.fileno())

    def _listen_again(self) -> None:
        if not self._listening and len(self._guests) < GUESTS_MAX:
            self._listening = True
            for listener in self._listeners:
                self._watch_listener(listener)


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more; whatever else is there stays, and makes the bind fail."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except BlockingIOError:
                return  # its backlog is full: somebody listens
