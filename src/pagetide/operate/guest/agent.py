"""QEMU's guest agent as the way to the guest's text (QEMU, docs/interop/qemu-ga-ref).

It is asked at the socket of its virtio-serial port, in JSON, a line each. What an earlier client left half said is
skipped by `guest-sync-delimited`, whose answer follows a byte that no JSON has. The script goes in as the input of a
shell (`guest-exec`), and what it wrote is asked for until it has ended. Many distributions block that; then the files
that the script would read are read one by one (`guest-file-open`, `guest-file-read`). All that answers is a guest's: it
is doubted.
"""

import base64
import binascii
import contextlib
import json
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from pagetide.operate.guest.files import text_of_files
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.operate.guest.text import TEXT_BYTES_MAX

_TIMEOUT_S = 10.0
_LOOK_S = 0.05
_RECEIVE_BYTES = 65536
_SENTINEL = b"\xff"
_ANSWER_BYTES_MAX = 4 * TEXT_BYTES_MAX // 3 + 65536
_WORDS_MAX = 200
_FILE_BYTES_MAX = 4 << 20
_READ_BYTES = 65536  # files of /proc/sys refuse to be read by megabytes (fs/proc/proc_sysctl.c)


class AgentError(Exception):
    """The agent cannot be asked; the message says why."""


class RefusedError(AgentError):
    """The agent answers that it does not do that."""


def agent_text(path: Path, *, timeout_s: float = _TIMEOUT_S) -> bytes:
    """Run the guest script by the agent at this socket; what it wrote.

    Raises:
        AgentError: nobody answers there in time, or it is no guest agent, or one that runs nothing.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(path))
            return _fetch(_Agent(sock, time.monotonic() + timeout_s))
        except TimeoutError as error:
            raise AgentError(
                f"no guest agent answers at {path} within {timeout_s:g} s: it may not run in the guest, or serve "
                "somebody else"
            ) from error
        except OSError as error:
            raise AgentError(f"{path} cannot be reached: {error.strerror or error}") from error
        except AgentError as error:
            raise AgentError(f"the guest agent at {path} {error}") from error


def _fetch(agent: "_Agent") -> bytes:
    """By the script, or where the agent may run nothing, as in many a distribution, by the files that it may read."""
    agent.synchronise()
    try:
        return agent.run(GUEST_SCRIPT)
    except RefusedError:
        with contextlib.suppress(RefusedError):
            return text_of_files(agent.read)
        raise


class _Agent:
    def __init__(self, sock: socket.socket, end_s: float) -> None:
        self._sock, self._end_s = sock, end_s
        self._rest = b""

    def run(self, script: str) -> bytes:
        """The output of a shell with this input."""
        pid = self._number(
            self._ask(
                "guest-exec",
                {
                    "path": "/bin/sh",
                    "arg": ["-s"],
                    "input-data": base64.b64encode(script.encode()).decode(),
                    "capture-output": True,
                },
            ),
            "pid",
        )
        while True:
            told = self._ask("guest-exec-status", {"pid": pid})
            if told.get("exited") is True:
                break
            time.sleep(_LOOK_S)  # it tells nobody when a program ends
        if told.get("exitcode") != 0 or told.get("out-truncated"):
            raise AgentError("did not run the script to its end")
        try:
            return base64.b64decode(str(told.get("out-data", "")), validate=True)
        except binascii.Error as error:
            raise AgentError("tells no output that can be read") from error

    def read(self, path: str) -> bytes | None:
        """What is in a file, or its beginning; None if it is not there, or may not be read.

        Raises:
            RefusedError: the agent opens no files.
        """
        try:
            told = self._reply("guest-file-open", {"path": path, "mode": "r"})
        except RefusedError as error:
            if "No such file" in str(error) or "Permission denied" in str(error):
                return None
            raise
        if not isinstance(told, int):
            raise AgentError("names no file that it has opened")
        try:
            data = b""
            while len(data) < _FILE_BYTES_MAX:
                answer = self._ask("guest-file-read", {"handle": told, "count": _READ_BYTES})
                data += (part := base64.b64decode(str(answer.get("buf-b64", "")), validate=True))
                if not part or answer.get("eof") is True:
                    break
            return data
        except RefusedError:
            return None
        except binascii.Error as error:
            raise AgentError("tells no contents that can be read") from error
        finally:
            self._reply("guest-file-close", {"handle": told})

    def synchronise(self) -> None:
        """Skip whatever is said until the answer to a number of ours."""
        number = secrets.randbelow(1 << 31)
        self._send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=_SENTINEL)
        while True:
            line = self._line()
            _, mark, rest = line.rpartition(_SENTINEL)
            if mark and _decoded(rest).get("return") == number:
                return

    def _ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        told = self._reply(command, arguments)
        if not isinstance(told, dict):
            raise AgentError(f"answers {command} with something else")
        return told

    def _reply(self, command: str, arguments: dict[str, Any]) -> Any:
        self._send({"execute": command, "arguments": arguments})
        answer = _decoded(self._line())
        error = answer.get("error")
        if error is not None:
            why = error.get("desc", "") if isinstance(error, dict) else ""
            raise RefusedError(
                f"refuses {command}: {str(why)[:_WORDS_MAX]!r}; run what `pagetide why --guest-script` prints in the "
                "guest instead"
            )
        return answer.get("return")

    def _number(self, told: dict[str, Any], name: str) -> int:
        number = told.get(name)
        if not isinstance(number, int):
            raise AgentError(f"names no {name}")
        return number

    def _send(self, request: dict[str, Any], before: bytes = b"") -> None:
        self._sock.sendall(before + json.dumps(request).encode() + b"\n")

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            left_s = self._end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._sock.settimeout(left_s)
            more = self._sock.recv(_RECEIVE_BYTES)
            if not more:
                raise AgentError("hung up")
            self._rest += more
            if len(self._rest) > _ANSWER_BYTES_MAX:
                raise AgentError("says more than an answer can have")
        line, self._rest = self._rest.split(b"\n", 1)
        return line


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AgentError("says something that is no JSON") from error
    if not isinstance(answer, dict):
        raise AgentError("says something that is no answer")
    return answer
