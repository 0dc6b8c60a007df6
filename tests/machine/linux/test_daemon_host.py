"""A real guest attached to a daemon that runs already: what it tells of the guest, and what if it does not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pagetide.machine.linux.daemon_host import DaemonHost
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts, QemuProgram, find_linux
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.linux.uml import UserModeLinux
from pagetide.machine.result import RunResult
from tests.machine.linux.guests import SMALL, folders_of_guests, gone, processes_of_guests, when_full
from tests.machine.watcher import MIB, Watcher
from tests.real_guests import real_guests

pytestmark = [pytest.mark.usefixtures("folder_for_guests"), real_guests(3)]


class Daemon:
    """A `pagetide serve` with one socket."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.control = folder / "vm1.sock", folder / "control.sock"
        command: list[str | Path] = [sys.executable, "-m", "pagetide.cli", "serve"]
        command += ["--socket", self.socket, "--control", self.control]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        while "listening" not in self.process.stderr.readline():
            assert self.process.poll() is None

    def run(self, uml: GuestParts, watcher: Watcher, control: Path | None = None, **changes: Any) -> RunResult:
        """Run the small guest attached to it."""
        config = msgspec.structs.replace(SMALL, **changes)
        host = DaemonHost(self.socket, control or self.control)
        return LinuxMachine(config, UserModeLinux(uml), host).run(watcher)

    def ctl(self, *words: str) -> str:
        """Ask it something."""
        command = [sys.executable, "-m", "pagetide.cli", "ctl", *words, "--control", str(self.control)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon."""
    daemon = Daemon(tmp_path)
    try:
        yield daemon
    finally:
        daemon.process.kill()
        daemon.process.wait()
        assert daemon.process.stderr is not None
        daemon.process.stderr.close()


def test_the_daemon_tells_what_it_did_for_our_guest(uml: GuestParts, daemon: Daemon) -> None:
    """The account comes from its control socket, and is our guest's alone; the daemon goes on afterwards."""
    watcher = Watcher()
    result = daemon.run(uml, watcher)
    assert result.outcome == "complete"
    assert watcher.warnings == []
    (burst,) = result.bursts
    assert burst.returned_bytes >= 0.98 * burst.eaten_bytes
    assert burst.verified_bytes is not None
    assert burst.verified_bytes >= 0.9 * burst.eaten_bytes
    assert result.reports
    assert result.verified_bytes == result.discarded_bytes == result.reported_bytes
    assert result.host_cpu_s is None
    assert result.config.verify_share == 0
    assert gone(processes_of_guests)
    assert folders_of_guests() == []
    assert "no guest" in daemon.ctl("list")


def test_a_daemon_that_is_killed_is_noticed(uml: GuestParts, daemon: Daemon) -> None:
    """The guest, whose balloon is gone, is stopped, and what was measured is there."""
    result = daemon.run(uml, when_full(daemon.process.kill), hold_s=30.0)
    assert result.outcome == f"the daemon at {daemon.socket} has ended; the guest was stopped"
    assert result.peak_resident_bytes > 140 * MIB
    assert result.reports is not None
    assert gone(processes_of_guests)


def test_without_answers_the_account_is_not_known(uml: GuestParts, daemon: Daemon, tmp_path: Path) -> None:
    """A guest runs all the same if nobody answers at the control socket; who looks on is told, and where to say it."""
    watcher = Watcher()
    result = daemon.run(uml, watcher, tmp_path / "nobody", fill_bytes=32 * MIB)
    assert result.outcome == "complete"
    (warning,) = watcher.warnings
    assert "no daemon answers" in warning
    assert "--control" in warning
    assert result.reports is None
    assert result.bursts[0].returned_bytes >= 0.9 * result.bursts[0].eaten_bytes


def test_a_socket_that_nobody_serves_any_more_ends_the_run(uml: GuestParts, daemon: Daemon) -> None:
    """Whom nobody would serve is not booted; where the daemon of another socket answers, the guest finds no balloon."""
    other = daemon.socket.with_name("vm2.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(other))
    config = msgspec.structs.replace(SMALL, bursts=1)
    result = LinuxMachine(config, UserModeLinux(uml), DaemonHost(other, daemon.control)).run(Watcher())
    assert result.outcome == "the guest stopped: the guest has found no balloon"
    assert result.bursts == []
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()
    watcher = Watcher()
    with pytest.raises(ConnectionRefusedError, match=r"nobody serves a guest at .*vm1\.sock: Connection refused"):
        daemon.run(uml, watcher)
    assert watcher.stages == []
    assert gone(processes_of_guests)
    assert folders_of_guests() == []


def test_a_target_reaches_a_guest_under_a_newer_qemu(daemon: Daemon, attachable: QemuProgram) -> None:
    """QEMU passes a changed configuration space on: the guest inflates its balloon, and all of that is discarded."""
    states: list[dict[str, Any]] = []

    def inflate() -> None:
        daemon.ctl("set", "vm1", "target=192MiB")
        deadline_s = time.monotonic() + 120
        while not states or (states[-1]["balloon_bytes"] < 64 * MIB and time.monotonic() < deadline_s):
            states.append(json.loads(daemon.ctl("show", "vm1", "--json")))

    config = msgspec.structs.replace(SMALL, fill_bytes=64 * MIB, hold_s=0.0)
    qemu = Qemu(find_linux(), attachable, is_balloon=False)
    host = DaemonHost(daemon.socket, daemon.control)
    result = LinuxMachine(config, qemu, host).run(Watcher(inflate, at_bytes=100 * MIB))
    assert result.outcome == "complete"
    assert states[-1]["balloon_bytes"] == 64 * MIB
    ledger = states[-1]["ledger"]
    assert ledger["inflate_reported_bytes"] == ledger["inflate_verified_bytes"] == 64 * MIB
    assert result.reports
    assert gone(processes_of_guests)
