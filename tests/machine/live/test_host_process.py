"""The host's process: what it does by a clock of its own begins with the guest's run."""

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from pagetide.host.memory.ledger import LEDGER_WORDS
from pagetide.machine.config import DesignName, RunConfig
from pagetide.machine.live import host_process
from pagetide.machine.live.host_process import run_host
from pagetide.machine.messages import Channel, Command, HostSetup, Ready

pytestmark = pytest.mark.jit


class Beside:
    """The other end of everything that a host's process has, and what it began to do by itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, design: DesignName) -> None:
        self.begun: list[str] = []
        self.guest, guest_end = socket.socketpair()
        ours, theirs = socket.socketpair()
        self.channel, self._theirs = Channel(ours), Channel(theirs)
        ledger_fd = os.memfd_create("ledger")
        os.ftruncate(ledger_fd, LEDGER_WORDS * 8)
        config = RunConfig(ram_bytes=32 << 20, design=design)
        self._setup = HostSetup(config, theirs.fileno(), guest_end.detach(), ledger_fd)
        monkeypatch.setattr(host_process, "taking_frames", self._taking_frames)
        monkeypatch.setattr(host_process, "serve_and_balloon", self._serve_and_balloon)

    def run(self) -> str | None:
        """Run the host until its guest has gone."""
        failure = run_host(self._setup, self._theirs)
        os.close(self._setup.ledger_fd)
        assert Ready() in self.channel.receive()
        self.channel.close()
        self._theirs.close()
        return failure

    @contextlib.contextmanager
    def _taking_frames(self, *_: object) -> Iterator[None]:
        self.begun.append("shared")
        self.guest.close()
        yield

    def _serve_and_balloon(self, *_: object) -> None:
        self.begun.append("balloon")
        self.guest.close()


@pytest.mark.parametrize("design", ["shared", "balloon"])
def test_a_host_that_acts_by_itself_begins_with_the_run(monkeypatch: pytest.MonkeyPatch, design: DesignName) -> None:
    """Once the word has come it does, so that its clock and the guest's have a beginning in common."""
    beside = Beside(monkeypatch, design)
    beside.channel.send(Command("start"))
    assert beside.run() is None
    assert beside.begun == [design]


@pytest.mark.parametrize("design", ["shared", "balloon"])
def test_without_a_run_it_does_nothing_by_itself(monkeypatch: pytest.MonkeyPatch, design: DesignName) -> None:
    """A guest that goes before it began ends the host, which took nothing and moved no target."""
    beside = Beside(monkeypatch, design)
    beside.guest.close()
    assert beside.run() is None
    assert beside.begun == []


def test_a_host_that_is_told_to_stop_before_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the guest gets ready: nothing begins."""
    beside = Beside(monkeypatch, "shared")
    beside.channel.send(Command("stop"))
    assert beside.run() is None
    assert beside.begun == []
    beside.guest.close()
