"""The daemon's control socket: the I/O around `control.handle`."""

import functools
import socket
from collections.abc import Callable
from pathlib import Path

from pagetide.host.control import ControlError, LineReader
from pagetide.host.fd_events import READABLE, FdEvents
from pagetide.host.listener import Listener

CLIENTS_MAX = 16
"""Most clients at once; the oldest goes when another comes."""

_RECEIVE_BYTES = 65536


class ControlSocket:
    """Answers clients, who may each ask any number of times. One that does not read its answers is dropped."""

    def __init__(self, path: Path, events: FdEvents, handle: Callable[[bytes], bytes]) -> None:
        """Listen at a path, and answer each line with what `handle` says.

        Raises:
            OSError: the path cannot be had, or somebody listens there.
        """
        self._events = events
        self._handle = handle
        self._clients: dict[socket.socket, LineReader] = {}
        self._listener = Listener(path)
        events.watch(self._listener.socket.fileno(), READABLE, self._accept)

    def close(self) -> None:
        """Let all clients go and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._events.unwatch(self._listener.socket.fileno())
        self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.socket.accept()
        except OSError:
            return
        if len(self._clients) >= CLIENTS_MAX:
            self._drop(next(iter(self._clients)))
        client.setblocking(False)
        self._clients[client] = LineReader()
        self._events.watch(client.fileno(), READABLE, functools.partial(self._talk, client))

    def _talk(self, client: socket.socket) -> None:
        try:
            data = client.recv(_RECEIVE_BYTES)
            for line in self._clients[client].receive(data):
                answer = self._handle(line)
                if client.send(answer, socket.MSG_NOSIGNAL) < len(answer):
                    raise ControlError("the client does not read its answers")
        except (OSError, ControlError):
            self._drop(client)
        else:
            if not data:
                self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        del self._clients[client]
        self._events.unwatch(client.fileno())
        client.close()
