"""`pagetide top` as a process: on a terminal, and without one."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pagetide import cli
from tests.operate.scripted_server import served
from tests.operate.watch.listed_guest import listed_guest

TIMEOUT_S = 30.0


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Path]:
    """A daemon that tells of one guest with two blocks, as often as it is asked."""

    def serve(client: socket.socket) -> None:
        while line := client.recv(4096):
            request = json.loads(line)
            answer: dict[str, object] = {"guests": [listed_guest("vm1", held_bytes=1 << 20)], "waiting": []}
            if request["command"] == "map":
                answer = {"page_map": {"first": 0, "blocks": 2, "states": "hr", "regions": [[0, 4 << 20, 0]]}}
            client.sendall(msgspec.json.encode(answer) + b"\n")

    with served(tmp_path / "control", serve) as path:
        yield path


class Terminal:
    """A terminal in which the command runs."""

    def __init__(self, *words: str) -> None:
        self.fd, theirs = pty.openpty()
        self.resize(100, 30)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pagetide.cli", "top", *words],
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"TERM": "xterm"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
        self.mode = termios.tcgetattr(theirs)
        os.close(theirs)
        self.text = ""

    def resize(self, columns: int, rows: int) -> None:
        """Have another size; the process is told."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Press keys, and forget what was seen before."""
        self.text = ""
        os.write(self.fd, keys)

    def see(self, words: str) -> None:
        """Wait until this is drawn."""
        while words not in self.text:
            assert select.select([self.fd], [], [], TIMEOUT_S)[0], f"no {words!r} in {self.text!r}"
            data = os.read(self.fd, 1 << 16).decode(errors="replace")
            self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data)

    def end(self) -> tuple[int, bytes]:
        """Its exit status and what it said on standard error; all that it draws is taken."""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while os.read(self.fd, 1 << 16):
                pass
        said = self.process.communicate(timeout=TIMEOUT_S)[1]
        os.close(self.fd)
        return self.process.returncode, said


@pytest.mark.parametrize("last", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_it_is_watched_and_ends_at_once(control: Path, last: bytes) -> None:
    """The table, a guest's map on a key, another size, and an end by q or Ctrl-C that leaves the terminal as it was."""
    terminal = Terminal("--control", str(control), "--daemon-only", "--interval", "3600")
    terminal.see("vm1")
    terminal.press(b"\r")
    terminal.see("█·")
    terminal.press(b"\x1b")
    terminal.see("Enter its map and curves")
    terminal.text = ""
    terminal.resize(120, 20)
    terminal.see("1 VM, 1 MiB held")
    terminal.press(last)
    assert terminal.end() == (0, b"")


def test_without_a_terminal_it_prints_once(control: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A table, or JSON in bytes; a column that is not there is a mistake of the caller's."""
    words = ["top", "--control", str(control), "--daemon-only"]
    assert cli.main(words) == 0
    head, line = capfd.readouterr().out.splitlines()
    assert head.split()[:3] == ["guest", "memory", "held"]
    assert line.split()[:5] == ["vm1", "1", "GiB", "1", "MiB"]
    assert cli.main([*words, "--json"]) == 0
    (vm,) = json.loads(capfd.readouterr().out)["vms"]
    assert (vm["name"], vm["held_bytes"], vm["balloon"]) == ("vm1", 1 << 20, "ours")
    assert cli.main([*words, "--sort", "colour"]) == 2
    assert "there is no column 'colour'" in capfd.readouterr().err


def test_without_a_daemon_it_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And prints what else there is: on a host without VMs nothing."""
    assert cli.main(["top", "--control", str(tmp_path / "nobody"), "--daemon-only"]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("no VM is found")
    assert "no daemon answers" in captured.err
