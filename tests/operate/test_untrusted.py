"""What others send is doubted: whatever stands in a saved file, in a monitor's or in an agent's answers."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagetide.machine.qemu.qmp import QmpError
from pagetide.operate.answer import answer
from pagetide.operate.evidence import Evidence, EvidenceError, load_evidence
from pagetide.operate.guest.agent import AgentError, agent_text
from pagetide.operate.guest.text import TEXT_BYTES_MAX, GuestTextError, read_guest_text
from pagetide.operate.host import monitor
from pagetide.operate.host.daemon import daemon_guests
from pagetide.operate.host.monitor import MonitorError, ask_monitor
from pagetide.operate.host.monitor_facts import MonitorFacts, VirtioMem
from pagetide.operate.page import page
from pagetide.operate.picture import picture
from pagetide.operate.sizes import LARGEST
from pagetide.operate.watch import host_vms
from pagetide.operate.watch.host_vms import HostVms
from pagetide.operate.watch.told_guests import ask_daemon
from pagetide.units import GIB, MIB
from tests.operate.scripted_server import served
from tests.operate.test_balance import make_guest, make_vm
from tests.operate.test_causes import daemon_that, monitor_that
from tests.operate.test_guest_text import TEXT

_NUMBERS = st.sampled_from([-1, 0, 1, 63, LARGEST, LARGEST + 1, 1 << 70, 10**400])
_VALUES = st.one_of(
    st.none(), st.booleans(), _NUMBERS, st.floats(), st.text(max_size=8),
    st.lists(_NUMBERS, max_size=2), st.dictionaries(st.text(max_size=4), _NUMBERS, max_size=2),
)  # fmt: skip


def _told() -> Any:
    """Evidence that has everything, as JSON has it."""
    device = VirtioMem(size_bytes=GIB, requested_bytes=0, max_bytes=GIB)
    evidence = Evidence(
        taken="2026-11-30T00:00:00+00:00",
        vm=make_vm(700 * MIB),
        guest=make_guest({9: 100, 3: 900}, pool_pages=20, inflated_pages=9000),
        monitor=monitor_that(virtio_mem=(device,), statistics_age_s=7, migration="active"),
        daemon=daemon_that(returned_bytes=GIB, refaulted_bytes=GIB, checked_bytes=GIB),
        gaps=("something",),
    )
    return json.loads(msgspec.json.encode(evidence))


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there is something in it that could be something else."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for name, child in children for place in _places(child, (*path, name)))][0 if path else 1 :]


def _with(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The same, but for what is at this place."""
    at = node
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return node


def _answer_or_sentence(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        evidence = load_evidence(path)
    except EvidenceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - it may be refused, and need not
        return
    found = answer(evidence)
    assert sum(found.balance.classes.values()) == found.balance.held_bytes
    assert picture(found, 80)
    assert page(found)


@settings(max_examples=200)
@given(st.sampled_from(_places(_told())), _VALUES)
def test_any_saved_evidence_is_answered_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    """One thing in it is another; what is of its form is answered and drawn, and all else one sentence."""
    path = tmp_path_factory.getbasetemp() / "evidence.json"
    _answer_or_sentence(path, json.dumps(_with(_told(), place, value)).encode())


@given(st.binary(max_size=200), st.integers(0, 4000))
def test_any_bytes_are_no_evidence(tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int) -> None:
    """Bytes alone, and bytes in the middle of evidence."""
    path, whole = tmp_path_factory.getbasetemp() / "evidence.json", json.dumps(_told()).encode()
    _answer_or_sentence(path, data)
    _answer_or_sentence(path, whole[:at] + data + whole[at + len(data) :])


@settings(max_examples=200)
@given(st.integers(0, len(TEXT.splitlines()) - 1), st.sampled_from([0, 1, LARGEST >> 13, LARGEST, 1 << 63]))
def test_any_figures_of_a_guest_are_drawn_or_refused(line: int, figure: int) -> None:
    """Each number of a line is another, as large as can be."""
    lines = TEXT.splitlines()
    words = [str(figure) if word.isdecimal() else word for word in lines[line].split(" ")]
    lines[line] = " ".join(words)
    try:
        guest = read_guest_text("\n".join(lines).encode())
    except GuestTextError:
        return
    found = answer(Evidence(taken="", vm=make_vm(700 * MIB), guest=guest))
    assert sum(found.balance.classes.values()) == found.balance.held_bytes
    assert picture(found, 80)


def test_the_longest_text_is_read_in_a_moment() -> None:
    """Whatever its lines are: none makes the reader go over the others again."""
    for line in ("Node 0, zone Normal", "x", "count: 1", "@pagetide \n", "Node 0, zone N " + "1 " * 100):
        body = (line + "\n") * (TEXT_BYTES_MAX // (len(line) + 2))
        for section in ("zoneinfo", "buddyinfo", "vmstat"):
            start_s = time.process_time()
            with pytest.raises(GuestTextError):
                read_guest_text(f"@pagetide guest 1\n@pagetide {section}\n{body}\n@pagetide end\n".encode())
            assert time.process_time() - start_s < 10


_COMMANDS = (
    "query-version", "query-memory-size-summary", "qom-list", "qom-get", "query-balloon", "query-memdev",
    "query-memory-devices", "query-migrate",
    "query-migrate-capabilities",
    "query-status",
)  # fmt: skip


def _honest(command: str, arguments: dict[str, Any]) -> Any:
    return {
        "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 22}},
        "query-memory-size-summary": {"base-memory": GIB, "plugged-memory": 0},
        "qom-list": [{"type": "child<virtio-balloon-pci>", "name": "b"}],
        "qom-get": {"last-update": 5} if arguments.get("property") == "guest-stats" else 0,
        "query-balloon": {"actual": GIB},
        "query-memdev": [{"size": GIB, "share": True, "prealloc": False}],
        "query-memory-devices": [
            {"type": "virtio-mem", "data": {"size": 1, "requested-size": 2, "max-size": 3}},
        ],
        "query-migrate": {"status": "completed"},
        "query-status": {"status": "running", "running": True},
        "query-migrate-capabilities": [{"capability": "background-snapshot", "state": False}],
    }[command]  # fmt: skip


class _Liar:
    """A monitor that answers one command with something else."""

    command, lie = "", None

    def __init__(self, sock: socket.socket, *, timeout_s: float) -> None:
        """It is never asked over the socket."""

    def ask(self, command: str, **arguments: Any) -> Any:
        if command != self.command:
            return _honest(command, arguments)
        if self.lie == "refuses":
            raise QmpError("QEMU answers with 'no'")
        return self.lie

    def close(self) -> None:
        """Nothing is open."""


def _lies(command: str) -> st.SearchStrategy[tuple[str, Any]]:
    """Another answer to a command, or the same with one thing in it that is another."""
    places = [place for place in _places(_honest(command, {})) if place]
    partly = st.builds(lambda place, value: _with(_honest(command, {}), place, value), st.sampled_from(places), _VALUES)
    whole = st.one_of(st.just("refuses"), _VALUES, st.lists(_VALUES, max_size=2))
    return st.tuples(st.just(command), st.one_of(whole, partly) if places else whole)


@settings(max_examples=400)
@given(st.sampled_from(_COMMANDS).flatmap(_lies))
def test_a_monitor_that_lies_is_read_or_refused(told: tuple[str, Any]) -> None:
    """Nothing but a MonitorError comes of it, and what is believed can be saved and is within bounds."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as sock:
        patch.setattr(_Liar, "command", told[0])
        patch.setattr(_Liar, "lie", told[1])
        patch.setattr(monitor, "Qmp", _Liar)
        try:
            facts = ask_monitor(sock)
        except MonitorError as error:
            assert "\n" not in str(error)  # noqa: PT017 - it may be refused, and need not
            return
    assert msgspec.json.decode(msgspec.json.encode(facts), type=MonitorFacts) == facts


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"\xff\xfe\n",
        b"QEMU 7.2.22 monitor - type 'help' for more information\r\n",
        b"{}\n",
        b"[" * 5000 + b"\n",
        b'{"QMP": 7}\n',
        b'{"QMP": {"version": {}, "capabilities": 1}}\n',
    ],
)
def test_what_is_no_monitor_is_one_sentence(greeting: bytes) -> None:
    """It hangs up after what it says, or before."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(greeting)
    with pytest.raises(MonitorError) as told:
        ask_monitor(ours)
    assert "\n" not in str(told.value)


@settings(max_examples=60)
@given(st.one_of(st.binary(max_size=80), _VALUES.map(lambda value: json.dumps({"return": value}).encode())))
def test_an_agent_that_lies_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    """What it answers to the first thing that it is asked to do, once it has synchronised; nobody waits for more."""
    name = tmp_path_factory.getbasetemp() / "qga"
    name.unlink(missing_ok=True)

    def serve(client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            asked = json.loads(lines.readline().lstrip(b"\xff"))
            client.sendall(b"\xff" + json.dumps({"return": asked["arguments"]["id"]}).encode() + b"\n")
            lines.readline()
            client.sendall(said + b"\n")

    with served(name, serve) as path, pytest.raises(AgentError) as told:
        agent_text(path, timeout_s=60.0)
    assert "\n" not in str(told.value)
    assert not str(told.value).startswith("no guest agent answers")


@given(st.binary(max_size=60))
@example(b'{"guests":' + b"[" * 100_000)
def test_what_is_no_daemon_is_an_error_that_is_caught(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    """Whoever listens at the control socket."""
    name = tmp_path_factory.getbasetemp() / "control"
    name.unlink(missing_ok=True)

    def serve(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(said + b"\n")

    for ask in (lambda path: daemon_guests(path, timeout_s=60.0), lambda path: list(ask_daemon(path))):
        with served(name, serve) as path, pytest.raises((OSError, msgspec.MsgspecError)) as told:
            ask(path)
        assert not isinstance(told.value, TimeoutError)
        name.unlink(missing_ok=True)


_CIRCLE = ["-chardev", "socket,id=c,path=circle", "-device", "vhost-user-test-device-pci,chardev=c,virtio-id=5"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("ram", ["-device", '{"a":' + "[" * 100_000]),
        ("ram", ["-object", '{"a":' + "[" * 100_000, "-m", "1" * 5000]),
        ("ram", _CIRCLE),
        ("ram\rRss: x kB", []),
        ("ram\x0cSwap: x kB", []),
        ("ram\u20287f0000000000-7f0008000000 rw-s 00000000 00:01 77", []),
    ],
)
def test_a_process_that_only_looks_like_a_vm_is_a_row_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, words: list[str]
) -> None:
    """Anybody on this host can have such options, such links and files with such names; all others are seen, too."""
    (tmp_path / "circle").symlink_to("circle")
    program = tmp_path / "qemu-system-test"
    program.symlink_to(sys.executable)
    code = (
        f"import mmap, sys; f = open({file!r}, 'wb+'); f.truncate(64 << 20)\n"
        "m = mmap.mmap(f.fileno(), 64 << 20); m[0] = 1; print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [program, "-c", code, *words], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setattr(host_vms, "find_vms", lambda: [process.pid])
        (vm,) = HostVms().look()
        process.kill()
    assert (vm.facts.ram_bytes, vm.sockets) == (64 * MIB, frozenset())
