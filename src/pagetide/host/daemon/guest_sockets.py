"""The sockets at which guests connect: one a guest, made by path or by name, each with what is wanted of its guest."""

import errno
import functools
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from pagetide.foreign_fds import Closer
from pagetide.host.daemon.listener import Listener
from pagetide.host.guest.fd_events import READABLE, FdEvents
from pagetide.host.guest.wishes import Wishes
from pagetide.host.memory.guest_memory import SharedMemoryLimit
from pagetide.host.sharing.descriptor_share import DescriptorShare

SOCKET_SUFFIX = ".sock"
"""What the name of a guest's socket ends with, in a folder of sockets."""

UNCLOSED_MAX = 4
"""Who has given so many descriptors that cannot be closed is given no more connections at that socket."""

_UNLIMITED = 1 << 62

_GUEST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

_FULL = (
    "%s has %d guests, its share of the files that this process may have open: more wait there until one goes; "
    "another socket, or a higher limit (ulimit -n, LimitNOFILE=), has room for them"
)

_log = logging.getLogger(__name__)


class GuestSocket:
    """One of them, listening.

    Attributes:
        path: where it is.
        wishes: what is wanted of the guest that connects there.
        attached: names of those that did.
        given_up: how many of them were given up, and did not go by themselves.
        memory_limit: how much more memory they may share.
        closer: closes what they gave.
    """

    path: Path
    wishes: Wishes
    attached: list[str]
    given_up: int
    memory_limit: SharedMemoryLimit
    closer: Closer

    def __init__(self, path: Path, share: DescriptorShare, listen: Callable[[Path], Listener] = Listener) -> None:
        """Listen; what an earlier server wanted of the socket's guest is wanted still.

        Args:
            path: where.
            share: what its guests may hold of this process's descriptors.
            listen: how.

        Raises:
            OSError: the path cannot be had, or somebody listens there, or what is wanted cannot be read.
        """
        self.path = path
        self.attached = []
        self.given_up = 0
        self.closer = Closer()
        self.memory_limit = SharedMemoryLimit(left_regions=share.regions)
        self._listener = listen(path)
        try:
            self.wishes = Wishes(path)
        except OSError:
            self._listener.close()
            raise

    @property
    def name(self) -> str:
        """What its guest is called."""
        return self.path.stem

    def fileno(self) -> int:
        """The listening socket's descriptor."""
        return self._listener.socket.fileno()

    def accept(self) -> socket.socket | None:
        """A guest's connection, or None if it has gone already.

        Raises:
            OSError: there is no room for one more.
        """
        try:
            return self._listener.socket.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None

    def close(self, *, keep: bool = False) -> None:
        """Listen no more, and remove the socket, unless it is to be kept for a daemon after this one."""
        self._listener.close(keep=keep)


class GuestSockets:
    """All of a server's. One that rests is not listened to, nor one for whose guests there is no room (`offer`)."""

    def __init__(
        self,
        events: FdEvents,
        *,
        on_guest: Callable[[GuestSocket], None],
        on_made: Callable[[GuestSocket], None],
        on_removed: Callable[[GuestSocket], object],
        share: DescriptorShare,
        listen: Callable[[Path], Listener] = Listener,
    ) -> None:
        """Start without sockets.

        Args:
            events: where to watch them.
            on_guest: called when a guest can be accepted at one.
            on_made: called with each new one.
            on_removed: called with each that is removed.
            share: what the guests of one may hold of this process's descriptors; who connects beyond that waits.
            listen: how to listen at a path.
        """
        self._events = events
        self._on_guest = on_guest
        self._on_made = on_made
        self._on_removed = on_removed
        self._listen = listen
        self._share = share
        self._sockets: dict[GuestSocket, bool] = {}  # whether it rests
        self._heard: set[GuestSocket] = set()
        self._full: set[GuestSocket] = set()  # of which it is told that they are
        self._folder: Path | None = None
        self._places = _UNLIMITED

    def __iter__(self) -> Iterator[GuestSocket]:
        return iter(self._sockets)

    def at(self, path: Path | None) -> GuestSocket | None:
        """The one at this path, if there is one."""
        return next((sock for sock in self._sockets if path and sock.path.resolve() == path.resolve()), None)

    @property
    def waiting(self) -> tuple[GuestSocket, ...]:
        """The sockets at which no guest is attached."""
        return tuple(sock for sock in self._sockets if not sock.attached)

    def listen(self, path: str | os.PathLike[str]) -> None:
        """Accept guests at a socket of this path, which only this user may connect to. A dead server's is replaced.

        Raises:
            OSError: as `GuestSocket`, or another socket's guest, or one that is attached, has the name that its guest
                would have.
        """
        name = Path(path).stem
        for sock in self._sockets:
            if name == sock.name or name in sock.attached:
                raise FileExistsError(errno.EEXIST, f"the guest at {sock.path} is called {name} already", str(path))
        made = GuestSocket(Path(path), self._share, self._listen)
        self._sockets[made] = False
        self._on_made(made)
        self.offer(self._places)

    def listen_in(self, folder: Path, *, but_not: Path | None = None) -> list[Path]:
        """Have `add` make sockets in this folder, and listen at those that a dead server left; which.

        One that somebody listens at is left alone, and so is `but_not`, the control socket perhaps.
        """
        self._folder = folder
        taken = []
        for path in sorted(folder.glob(f"*{SOCKET_SUFFIX}")):
            if not path.is_socket() or (but_not is not None and path.absolute() == but_not.absolute()):
                continue
            try:
                self.listen(path)
            except OSError as error:
                _log.warning("%s is left alone: %s", path, error)
            else:
                taken.append(path)
        return taken

    def add(self, name: str) -> Path:
        """Listen at a socket for a guest of this name; its path.

        Raises:
            ValueError: there is no folder for sockets, or the name makes none, or it cannot be had.
        """
        if self._folder is None:
            raise ValueError("the daemon was not started with --socket-dir, so it makes no sockets")
        if not _GUEST_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a guest: up to 64 letters, digits, and _ . - after the first")
        path = self._folder / f"{name}{SOCKET_SUFFIX}"
        try:
            self.listen(path)
        except OSError as error:
            raise ValueError(f"no socket can be had at {path}: {error.strerror or error}") from error
        _log.info("listening at %s", path)
        return path

    def remove(self, name: str) -> Path:
        """Listen no more at the socket for a guest of this name, and forget what was wanted of it; its path.

        Raises:
            ValueError: there is none, or `add` could not make it again, or its guest is attached, or what was wanted
                cannot be forgotten.
        """
        found = next((sock for sock in self._sockets if sock.name == name), None)
        if found is None:
            raise ValueError(f"there is no socket for a guest {name!r}")
        if not self._is_in_folder(found):
            raise ValueError(
                f"{found.path} was given when the daemon was started and stays as long as it runs; "
                "sockets that come and go are made with --socket-dir and `pagetide ctl add`"
            )
        if found.attached:
            raise ValueError(f"{found.attached[0]} is attached; stop that guest first")
        try:
            found.wishes.forget()
        except OSError as error:
            raise ValueError(f"what is wanted of {name} cannot be forgotten, so its socket stays: {error}") from error
        self._hear(found, heard=False)
        del self._sockets[found]
        self._full.discard(found)
        self._on_removed(found)
        self.offer(self._places)
        found.close()
        _log.info("listening no more at %s", found.path)
        return found.path

    def rest(self, sock: GuestSocket) -> None:
        """Accept nobody at this socket until `go_on`."""
        self._sockets[sock] = True
        self.offer(self._places)

    def go_on(self, sock: GuestSocket) -> None:
        """Accept guests at this socket again."""
        self._sockets[sock] = False
        self.offer(self._places)

    def offer(self, places: int) -> None:
        """Accept so many more guests; who connects beyond that waits.

        The last places are kept for sockets at which nobody is attached, one each: who connects to one socket again
        and again takes no other guest's place.
        """
        self._places = places
        kept = len(self.waiting)
        for sock, rests in self._sockets.items():
            is_full = len(sock.attached) >= self._share.connections
            if is_full and sock not in self._full:
                _log.warning(_FULL, sock.path, len(sock.attached))
                self._full.add(sock)
            elif 2 * len(sock.attached) < self._share.connections:
                self._full.discard(sock)
            has_room = not is_full and places > (kept if sock.attached else 0)
            self._hear(sock, heard=not rests and has_room)

    def close(self) -> None:
        """Listen no more. Sockets in the folder are kept for a daemon after this one, and all that is wanted is."""
        for sock in self._sockets:
            self._hear(sock, heard=False)
            sock.close(keep=self._is_in_folder(sock))
        self._sockets.clear()

    def _is_in_folder(self, sock: GuestSocket) -> bool:
        """Whether it is one that `add` makes, and that a later daemon listens at."""
        return self._folder is not None and sock.path.parent == self._folder

    def _hear(self, sock: GuestSocket, *, heard: bool) -> None:
        if heard and sock not in self._heard:
            self._heard.add(sock)
            self._events.watch(sock.fileno(), READABLE, functools.partial(self._on_guest, sock))
        elif not heard and sock in self._heard:
            self._heard.remove(sock)
            self._events.unwatch(sock.fileno())
