"""Listening Unix sockets that only this user may connect to."""

import contextlib
import errno
import socket
import stat
from pathlib import Path

Socket = socket.socket
"""Under a name that an attribute does not hide."""

_BACKLOG = 64


class Listener:
    """A listening socket at a path; a dead server's socket there is replaced.

    Attributes:
        path: where it is.
        socket: the socket, which does not block.
        stays: whether the socket is left at its path when it is closed here, because somebody else has it, too.
    """

    path: Path
    stays: bool
    socket: socket.socket

    def __init__(self, path: Path, inherited: Socket | None = None) -> None:
        """Listen, with a socket that listens at this path already if there is one and it can still be found there.

        Raises:
            OSError: the path cannot be had, or somebody listens there; the message names it.
        """
        self.path = path
        self.stays = False
        if inherited is not None:
            if path.is_socket():
                self.socket = inherited
                self._identity = _identity(path)
                return
            inherited.close()
        _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.bind(str(path))
            self._identity = _identity(path)
            path.chmod(0o600)  # nobody can connect before the listen
            self.socket.listen(_BACKLOG)
        except OSError as error:
            self.socket.close()
            if error.errno == errno.EADDRINUSE:
                why = "another process listens there" if path.is_socket() else "there is something that is no socket"
                raise OSError(errno.EADDRINUSE, why, str(path)) from error
            raise OSError(error.errno, error.strerror, str(path)) from error

    def close(self, *, keep: bool = False) -> None:
        """Listen no more, and remove the socket if it is still this one, unless it `stays` or is to be kept."""
        self.socket.close()
        if keep or self.stays:
            return
        with contextlib.suppress(OSError):  # what stays is replaced by whoever listens there next
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody has any more; whatever else is there stays, and makes the bind fail.

    A socket of another type never connects, so who listens does not take the question for a guest: the kernel says
    EPROTOTYPE where somebody has the socket, and ECONNREFUSED where nobody has (unix(7)).
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
