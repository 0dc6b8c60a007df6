"""The control socket of a running `pagetide serve`, from outside: a request, and its answer."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

TIMEOUT_S = 10.0
"""How long an answer is waited for."""

_RECEIVE_BYTES = 1 << 18
_ANSWER_BYTES_MAX = 64 << 20


class ControlConnection:
    """A connection to a daemon's control socket, for any number of requests, one after the other."""

    def __init__(self, control: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(control))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, request: dict[str, Any]) -> None:
        """Send a request; its answer is to be received before the next one is sent.

        Raises:
            OSError: the daemon has gone.
        """
        self._socket.sendall(msgspec.json.encode(request) + b"\n")

    def receive(self) -> bytes:
        """The line that is the answer.

        Raises:
            OSError: it does not come in time, or the daemon has gone.
        """
        data = bytearray()
        while not data.endswith(b"\n"):
            more = self._socket.recv(_RECEIVE_BYTES)
            if not more:
                raise ConnectionResetError("the daemon closed the connection")
            data += more
            if len(data) > _ANSWER_BYTES_MAX:
                raise ConnectionAbortedError("the answer is too long for a daemon's")
        return bytes(data)


def ask(control: Path, request: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Send a request, and wait for the answer.

    Raises:
        OSError: nobody answers there.
        msgspec.DecodeError: what answers there is no daemon of ours.
    """
    with ControlConnection(control, timeout_s=timeout_s) as connection:
        connection.send(request)
        answer: dict[str, Any] = msgspec.json.decode(connection.receive())
    return answer
