"""The daemon's control socket: the I/O around `control.handle`."""

import contextlib
import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path

from pagetide.host.control import ControlError, LineReader
from pagetide.host.fd_events import READABLE, WRITABLE, FdEvents
from pagetide.host.listener import Listener

CLIENTS_MAX = 16
"""Most clients at once; the oldest goes when another comes."""

_RECEIVE_BYTES = 65536


class _Client:
    """One client: lines that are not answered yet, and what of an answer it has not taken yet."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._reader = LineReader()
        self._lines: list[bytes] = []
        self.unsent = b""

    def talk(self, handle: Callable[[bytes], bytes]) -> bool:
        """Answer line after line for as long as the client takes answers; False once it has hung up.

        Raises:
            OSError: it has gone.
            ControlError: a line is too long.
        """
        if not self.unsent and not self._lines:
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                return False
            self._lines = self._reader.receive(data)
        self._flush()
        while self._lines and not self.unsent:
            self.unsent = handle(self._lines.pop(0))
            self._flush()
        return True

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent, socket.MSG_NOSIGNAL) :]


class ControlSocket:
    """Answers clients, who may each ask any number of times. One that does not read its answers is asked no more.

    Attributes:
        asking: whose request is being answered, if one is.
    """

    asking: socket.socket | None

    def __init__(
        self,
        path: Path,
        events: FdEvents,
        handle: Callable[[bytes], bytes],
        listen: Callable[[Path], Listener] = Listener,
    ) -> None:
        """Listen at a path, in the way given, and answer each line with what `handle` says.

        Raises:
            OSError: the path cannot be had, or somebody listens there.
        """
        self._events = events
        self._handle = handle
        self._clients: dict[_Client, None] = {}
        self.asking = None
        self._listener = listen(path)
        self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        events.watch(self._listener.socket.fileno(), READABLE, self._accept)

    def close(self) -> None:
        """Let all clients go and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._events.unwatch(self._listener.socket.fileno())
        self._listener.close()
        os.close(self._spare_fd)

    def _accept(self) -> None:
        try:
            client = _Client(self._listener.socket.accept()[0])
        except OSError:
            self._turn_away()
            return
        if len(self._clients) >= CLIENTS_MAX:
            self._drop(next(iter(self._clients)))
        self._clients[client] = None
        self._events.watch(client.socket.fileno(), READABLE, functools.partial(self._talk, client))

    def _turn_away(self) -> None:
        """No descriptor is left for a client, so hang up on it: its call would make the listener readable for ever."""
        os.close(self._spare_fd)
        with contextlib.suppress(OSError):
            self._listener.socket.accept()[0].close()
        self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _talk(self, client: _Client) -> None:
        self.asking = client.socket
        try:
            if client.talk(self._handle):
                self._events.rewatch(client.socket.fileno(), WRITABLE if client.unsent else READABLE)
                return
        except BlockingIOError:
            return
        except (OSError, ControlError):
            pass
        finally:
            self.asking = None
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._events.unwatch(client.socket.fileno())
        client.socket.close()
