"""QEMU's monitor protocol: one JSON object a line, in which a program tells a running QEMU what to do.

Described in QEMU's docs/interop/qmp-spec. One command at a time; what QEMU says unasked (events) is dropped.
"""

import json
import select
import socket
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, did not answer, or ended."""


class Qmp:
    """A connection to QEMU's monitor. It owns the socket."""

    def __init__(self, sock: socket.socket, *, timeout_s: float = 10.0) -> None:
        """Take over a connected socket; an answer that takes longer than the timeout is an error."""
        self._socket = sock
        self._rest = b""
        self._timeout_s = timeout_s
        self._greeted = False

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give one command; what it returns.

        Raises:
            QmpError: QEMU refused it, did not answer, or ended.
        """
        if not self._greeted:
            self._greeted = True
            self._object(command)  # the greeting
            self.ask("qmp_capabilities")
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpError(f"QEMU has ended ({command!r})") from error
        while True:
            answer = self._object(command)
            if "error" in answer:
                raise QmpError(f"QEMU answers {command!r} with {answer['error'].get('desc')!r}")
            if "return" in answer:
                return answer["return"]

    def _object(self, command: str) -> dict[str, Any]:
        while b"\n" not in self._rest:
            if not select.select([self._socket], [], [], self._timeout_s)[0]:
                raise QmpError(f"QEMU did not answer {command!r} within {self._timeout_s:g} s")
            data = self._socket.recv(65536)
            if not data:
                raise QmpError(f"QEMU ended at {command!r}")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer
