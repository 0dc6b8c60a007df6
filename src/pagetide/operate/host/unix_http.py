"""HTTP over a Unix socket: one GET, with bounds on how long an answer may take and how large it may be."""

import http.client
import socket
from pathlib import Path

_TIMEOUT_S = 0.8
_BODY_BYTES_MAX = 1 << 20


class UnixHttpError(Exception):
    """What answers does not speak HTTP, or says too much; the message says which."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


def get(path: Path, what: str) -> bytes | None:
    """The body of the answer at this socket; None if it is refused, as of a thing that is not there.

    Raises:
        OSError: nobody answers in time.
        UnixHttpError: what answers is no such server.
    """
    connection = _UnixConnection(path)
    try:
        connection.request("GET", what, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(_BODY_BYTES_MAX + 1)
    except http.client.HTTPException as error:
        raise UnixHttpError(str(error)) from error
    finally:
        connection.close()
    if len(body) > _BODY_BYTES_MAX:
        raise UnixHttpError(f"it says more of {what} than an answer can have")
    return body if answer.status == http.client.OK else None
