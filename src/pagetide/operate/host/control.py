"""The control socket of a running `pagetide serve`, from outside: a request, and its answer."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

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


_Answer = TypeVar("_Answer")


def decode_told(data: bytes, kind: type[_Answer]) -> _Answer:
    """What was told, as JSON, as one of these.

    Raises:
        msgspec.DecodeError: it is none.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error


class Part(msgspec.Struct, kw_only=True):
    """An answer that tells some of the guests: what all such answers have."""

    error: str | None = None
    more_after: str | None = None


_Kind = TypeVar("_Kind", bound=Part)


def ask_in_parts(control: Path, request: dict[str, Any], kind: type[_Kind], *, timeout_s: float) -> Iterator[_Kind]:
    """The answers to a request for so many guests, and then for those after them, until all are told.

    While one answer is dealt with, the next is being made.

    Raises:
        OSError: nobody answers there, or not in time, or the daemon refuses.
        msgspec.DecodeError: what answers is no daemon of ours, or another release's.
    """
    with ControlConnection(control, timeout_s=timeout_s) as connection:
        connection.send(request)
        after: str | None = ""
        while after is not None:
            part = decode_told(connection.receive(), kind)
            if part.error is not None:
                raise ConnectionAbortedError(part.error)
            after = part.more_after
            if after is not None:
                connection.send(request | {"after": after})
            yield part


def ask(control: Path, request: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Send a request, and wait for the answer.

    Raises:
        OSError: nobody answers there.
        msgspec.DecodeError: what answers there is no daemon of ours.
    """
    with ControlConnection(control, timeout_s=timeout_s) as connection:
        connection.send(request)
        return decode_told(connection.receive(), dict[str, Any])
