"""QEMU's monitor protocol: one command at a time, events dropped, refusals in QEMU's own words."""

import json
import socket
import threading

import pytest

from pagetide.machine.qemu.qmp import Qmp, QmpError


def test_a_command_returns_what_qemu_says() -> None:
    """The greeting is answered first; events between a command and its answer are dropped."""
    ours, theirs = socket.socketpair()
    said: list[dict[str, object]] = []

    def answer() -> None:
        theirs.sendall(b'{"QMP": {}}\n')
        with theirs.makefile("r") as lines:
            for answer in (b'{"return": {}}\n', b'{"event": "STOP"}\n{"return": 7}\n', b'{"error": {"desc": "no"}}\n'):
                said.append(json.loads(lines.readline()))
                theirs.sendall(answer)

    thread = threading.Thread(target=answer)
    thread.start()
    with theirs:
        qmp = Qmp(ours)
        assert qmp.ask("stop", now=True) == 7
        with pytest.raises(QmpError, match="'cont' with 'no'"):
            qmp.ask("cont")
        qmp.close()
        thread.join()
    assert said == [
        {"execute": "qmp_capabilities"},
        {"execute": "stop", "arguments": {"now": True}},
        {"execute": "cont"},
    ]


def test_a_qemu_that_is_silent_or_gone_is_an_error() -> None:
    """No answer in time, and the end of the connection, are errors that name the command."""
    ours, theirs = socket.socketpair()
    qmp = Qmp(ours, timeout_s=0.01)
    theirs.sendall(b'{"QMP": {}}\n')
    with pytest.raises(QmpError, match="did not answer 'qmp_capabilities'"):
        qmp.ask("stop")
    theirs.close()
    with pytest.raises(QmpError, match="ended"):
        qmp.ask("stop")
    qmp.close()
