"""QEMU's monitor: one command at a time, events dropped, refusals in QEMU's own words."""

import json
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from pagetide.machine.qemu.qmp import Qmp, QmpError

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'


class MadeUpQemu(threading.Thread):
    """The monitor's other end: greets, and answers one command after another, then ends.

    Attributes:
        said: the commands it was given.
    """

    def __init__(self, sock: socket.socket, answers: Iterable[list[dict[str, object]]]) -> None:
        """Answers are lists of messages; one without an event is the answer proper."""
        super().__init__(daemon=True)
        self.said: list[dict[str, object]] = []
        self._socket = sock
        self._answers = answers
        self.start()

    def run(self) -> None:
        with self._socket:
            self._socket.sendall(GREETING)
            for messages in self._answers:
                command = json.loads(self._socket.recv(65536))  # without a newline
                name = command.pop("id", None)
                self.said.append(command)
                for message in messages:
                    whole = message if "event" in message or name is None else message | {"id": name}
                    self._socket.sendall(json.dumps(whole).encode() + b"\n")


def event(name: str) -> dict[str, object]:
    """What QEMU says unasked."""
    return {"event": name, "timestamp": {"seconds": 1, "microseconds": 2}}


def test_a_command_returns_what_qemu_says() -> None:
    """The greeting is answered first; events between a command and its answer are dropped; a refusal harms no other."""
    ours, theirs = socket.socketpair()
    refusal: dict[str, object] = {"error": {"class": "GenericError", "desc": "no"}}
    qemu = MadeUpQemu(theirs, [[{"return": {}}], [event("STOP"), {"return": 7}], [refusal], [{"return": 8}]])
    qmp = Qmp(ours)
    assert qmp.ask("stop", now=True) == 7
    with pytest.raises(QmpError, match="'cont' with 'no'"):
        qmp.ask("cont")
    assert qmp.ask("query-status") == 8
    qmp.close()
    qemu.join(10)
    assert qemu.said == [
        {"execute": "qmp_capabilities", "arguments": {}},
        {"execute": "stop", "arguments": {"now": True}},
        {"execute": "cont", "arguments": {}},
        {"execute": "query-status", "arguments": {}},
    ]
    assert ours.fileno() == -1


def test_an_event_before_the_greeting_is_passed_over() -> None:
    """QEMU tells the next client what happens as it comes, since the one before was to have it."""
    ours, theirs = socket.socketpair()
    for name in ("STOP", "RESUME"):
        theirs.sendall(json.dumps(event(name)).encode() + b"\n")
    qemu = MadeUpQemu(theirs, [[{"return": {}}], [{"return": 7}]])
    qmp = Qmp(ours)
    assert qmp.ask("query-status") == 7
    qmp.close()
    qemu.join(10)


def test_a_qemu_that_is_silent_or_gone_is_an_error() -> None:
    """No answer in time, and the end of the connection, are errors that name the command."""
    ours, theirs = socket.socketpair()
    go_on = threading.Event()

    def slowly() -> Iterable[list[dict[str, object]]]:
        yield [{"return": {}}]
        yield [{"return": 7}]
        yield []
        go_on.wait(10)

    qemu = MadeUpQemu(theirs, slowly())
    qmp = Qmp(ours)
    assert qmp.ask("query-status") == 7
    qmp._timeout_s = 0.2
    with pytest.raises(QmpError, match=r"did not answer 'stop' within 0.2 s"):
        qmp.ask("stop")
    qmp._timeout_s = 10.0
    go_on.set()
    qemu.join(10)
    for _ in range(2):
        with pytest.raises(QmpError, match="ended at 'cont'"):
            qmp.ask("cont")
    qmp.close()


def test_a_monitor_that_another_program_holds_or_nobody(tmp_path: Path) -> None:
    """It accepts, and gives no greeting; or there is none; or what is there ends at once, or is no monitor."""
    path = tmp_path / "qmp"
    for what, words in [("none", "cannot be reached: .*No such file"), ("held", r"no greeting within 0.2 s")]:
        with socket.socket(socket.AF_UNIX) as listening:
            if what == "held":
                listening.bind(str(path))
                listening.listen()
            qmp = Qmp(path, timeout_s=0.2)
            with pytest.raises(QmpError, match=words):
                qmp.ask("query-status")
            qmp.close()
    for said, words in [(b"", "cannot be reached"), (b"SSH-2.0\r\n", "no QMP monitor")]:
        ours, theirs = socket.socketpair()
        theirs.sendall(said)
        theirs.close()
        qmp = Qmp(ours)
        with pytest.raises(QmpError, match=words):
            qmp.ask("query-status")
        qmp.close()
