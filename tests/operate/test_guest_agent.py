"""QEMU's guest agent: the conversation, against one that says what a test has it say."""

import base64
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagetide.operate.guest.agent import AgentError, agent_text
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.operate.guest.text import read_guest_text
from tests.needed import lacking
from tests.operate.scripted_server import served

TEXT = b"@pagetide guest 1\n\xff\x00@pagetide end\n"


class Agent:
    """One that runs what it is given, and says that it has ended when it is asked the second time."""

    def __init__(self, **answers: Any) -> None:
        """Some answers can be other ones: bytes as they are, or what is encoded."""
        self._answers = answers
        self._looks = 0
        self.ran: dict[str, Any] = {}

    def serve(self, client: socket.socket) -> None:
        """Answer line by line until the client has gone."""
        with client.makefile("rb") as lines:
            client.sendall(b'{"return": {"left": "by somebody"}}\n{"return": 7')  # an earlier client's
            for line in lines:
                request = json.loads(line.lstrip(b"\xff"))
                answer = self._answer(request["execute"], request.get("arguments", {}))
                client.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
                if answer == b"":
                    return

    def _answer(self, command: str, arguments: dict[str, Any]) -> Any:
        name = command.replace("-", "_")
        if name in self._answers:
            return self._answers[name]
        if command == "guest-sync-delimited":
            return b"\n\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
        if command == "guest-exec":
            self.ran = arguments
            return {"return": {"pid": 42}}
        if command == "guest-file-open":
            return {"error": {"class": "CommandNotFound", "desc": "it is blocked, too"}}
        assert (command, arguments) == ("guest-exec-status", {"pid": 42})
        self._looks += 1
        if self._looks == 1:
            return {"return": {"exited": False}}
        return {"return": {"exited": True, "exitcode": 0, "out-data": base64.b64encode(TEXT).decode()}}


def test_the_script_is_run_and_what_it_wrote_is_fetched(tmp_path: Path) -> None:
    """After what somebody else left half said; the script is the shell's input, and its bytes come as they are."""
    agent = Agent()
    with served(tmp_path / "qga", agent.serve) as path:
        assert agent_text(path) == TEXT
    assert (agent.ran["path"], agent.ran["arg"]) == ("/bin/sh", ["-s"])
    assert base64.b64decode(agent.ran["input-data"]).decode() == GUEST_SCRIPT
    assert agent.ran["capture-output"] is True


def _status(**told: Any) -> Any:
    return {"return": {"exited": True, "exitcode": 0} | told}


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"guest_exec": {"error": {"class": "CommandNotFound", "desc": "is disabled"}}}, "refuses guest-exec: 'is d"),
        ({"guest_exec": {"error": 7}}, "refuses guest-exec"),
        ({"guest_exec": {"return": []}}, "answers guest-exec with something else"),
        ({"guest_exec": {"return": {}}}, "names no pid"),
        ({"guest_exec": [1]}, "something that is no answer"),
        ({"guest_exec": b"\x80\x81\n"}, "something that is no JSON"),
        ({"guest_exec": b"[" * 100_000 + b"\n"}, "something that is no JSON"),
        ({"guest_exec": b""}, "hung up"),
        ({"guest_exec": b"x" * (12 << 20)}, "more than an answer can have"),
        ({"guest_exec_status": _status(exitcode=1)}, "did not run the script to its end"),
        ({"guest_exec_status": _status(**{"out-truncated": True})}, "did not run the script to its end"),
        ({"guest_exec_status": _status(**{"out-data": "!!"})}, "no output that can be read"),
    ],
)  # fmt: skip
def test_what_is_no_agents_answer_is_one_sentence(answers: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """Whatever a guest sends."""
    serve = _quiet(Agent(**answers).serve)
    with served(tmp_path / "qga", serve) as path, pytest.raises(AgentError, match=sentence) as told:
        agent_text(path)
    assert str(told.value).startswith(f"the guest agent at {path} ")


def _quiet(serve: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def serve_until_it_goes(client: socket.socket) -> None:
        try:
            serve(client)
        except ConnectionError:
            return

    return serve_until_it_goes


def _say_nothing(client: socket.socket) -> None:
    with client.makefile("rb") as lines:
        lines.read()


def test_an_agent_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """It may not run, as the socket is QEMU's; and nobody may listen at all."""
    with (
        served(tmp_path / "qga", _say_nothing) as path,
        pytest.raises(AgentError, match=r"no guest agent answers at .* within 0.2 s"),
    ):
        agent_text(path, timeout_s=0.2)
    with pytest.raises(AgentError, match="cannot be reached: No such file"):
        agent_text(tmp_path / "none")


@contextmanager
def real_agent(path: Path, *words: str) -> Iterator[Path]:
    """QEMU's own agent, whose guest is this machine, listening there."""
    program = Path("/usr/sbin/qemu-ga")
    if not program.exists():
        lacking("as root on Debian, make setup-guests installs QEMU's guest agent")
    pid_file, state = path.parent / "pid", path.parent
    with subprocess.Popen(
        [program, "-m", "unix-listen", "-p", path, "-f", pid_file, "-t", state, *words], stderr=subprocess.DEVNULL
    ) as agent:
        try:
            deadline_s = time.monotonic() + 20
            while not path.is_socket():
                assert agent.poll() is None, "the agent has ended"
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            yield path
        finally:
            agent.kill()


@pytest.mark.slow
def test_qemus_own_agent_tells_by_the_script_and_by_files(tmp_path: Path) -> None:
    """The same guest is read both ways: where programs may be run, and where they may not."""
    with real_agent(tmp_path / "qga") as path:
        by_script = read_guest_text(agent_text(path))
    with real_agent(tmp_path / "qga2", "-b", "guest-exec") as path:
        by_files = read_guest_text(agent_text(path))
    assert by_script.release == by_files.release == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert by_script.memory("MemTotal") == by_files.memory("MemTotal") > 0
    assert {zone.name for zone in by_script.zones} == {zone.name for zone in by_files.zones}
    assert by_script.balloons == by_files.balloons
    assert {pool.page_bytes for pool in by_script.pools} == {pool.page_bytes for pool in by_files.pools}
    assert by_script.percpu_pagelist_high_fraction == by_files.percpu_pagelist_high_fraction
    with (
        real_agent(tmp_path / "qga3", "-b", "guest-exec,guest-file-open") as path,
        pytest.raises(AgentError, match=r"refuses guest-exec: .*; run what `pagetide why --guest-script` prints"),
    ):
        agent_text(path)
