"""`pagetide serve` as a process, and `pagetide ctl` against it."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.host.device.balloon import FEATURES
from pagetide.virtio.balloon import Queue
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest


class Daemon:
    """A daemon's process, listening."""

    def __init__(self, folder: Path, *options: str, program: Sequence[str] = ("-m", "pagetide.cli")) -> None:
        """Start it, as Python has this program, and wait until its sockets are there."""
        self.folder = folder
        self.control = folder / "control"
        sockets = [word for name in ("one", "two") for word in ("--socket", str(folder / f"{name}.sock"))]
        if "--socket-dir" in options:
            sockets = []
        command = [sys.executable, *program, "serve", "--control", str(self.control), *sockets, *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        while "listening at" not in (line := self.process.stderr.readline()):
            assert line, "it ended"  # until then it may say that it is loading

    def guest(
        self, name: str, queue: Queue = Queue.REPORTING, features: int = int(FEATURES), pages: int = 1024
    ) -> ServedGuest:
        """Attach a guest at one of the sockets."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.folder / f"{name}.sock"))
        return ServedGuest(sock, queue=queue, features=features, pages=pages)

    def ctl(self, *words: str) -> int:
        """Run `pagetide ctl`; its exit status."""
        return cli.main(["ctl", *words, "--control", str(self.control)])

    def close(self) -> None:
        """Leave no process behind."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate(timeout=TIMEOUT_S)

    def stopped_saying(self, sentence: str, times: int = 1) -> None:
        """Stop it; it ends as it should, and its log has the sentence so many times."""
        status, log = self.stop()
        assert status == 0
        assert log.count(sentence) == times

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Stop it; its exit status and the rest of its log."""
        self.process.send_signal(number)
        log = self.process.communicate(timeout=TIMEOUT_S)[1]
        return self.process.returncode, log


def show(daemon: Daemon, name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What ctl shows of a guest, as JSON."""
    capsys.readouterr()
    assert daemon.ctl("show", name, "--json") == 0
    shown: dict[str, object] = json.loads(capsys.readouterr().out)
    return shown
