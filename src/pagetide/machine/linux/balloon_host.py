"""Who serves a real guest's balloon: a host's process of ours, the hypervisor itself, or a daemon (`daemon_host.py`).

They differ in what they tell: our own process shares its ledger, a daemon is asked for it, a hypervisor says nothing.
"""

import contextlib
import select
import socket
import time
from pathlib import Path
from typing import Protocol

import numpy as np

from pagetide.host.memory.ledger import LEDGER_WORDS, Ledger
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.guest import LinuxGuest
from pagetide.machine.live.processes import STOP_MAX_S, Child, shared_memory
from pagetide.machine.messages import Ended, HostSetup, Ready, Stage
from pagetide.machine.observer import Observer
from pagetide.processes import process_cpu_s

BOOT_MAX_S = 120.0
"""How long a guest may take until it is at its balloon, and again until it is ready."""


class BalloonHost(Protocol):
    """Who serves the balloon of one guest."""

    @property
    def ledger(self) -> Ledger | None:
        """Its account of this guest, as it is at any moment; None if it does not tell. From `listen` on."""

    @property
    def verify_share(self) -> float:
        """Share of reports that it reads back; 0 if that is not ours to say."""

    @property
    def ready(self) -> bool:
        """Whether the guest is being served."""

    def listen(self, resources: contextlib.ExitStack, folder: Path, observer: Observer) -> Path | None:
        """Get ready for the guest; the socket at which its balloon is to be had, None if that is its hypervisor's."""

    def attach(self, resources: contextlib.ExitStack, guest: LinuxGuest) -> None:
        """Begin to serve the guest, which has been started.

        Raises:
            OSError: it did not come, or cannot be served.
        """

    def fileno(self) -> int | None:
        """What to wait for; None if there is nothing."""

    def hear(self) -> bool:
        """Take what has come at `fileno`; whether the host is still there."""

    def look(self, now_s: float) -> None:
        """Called at every sample: a host that has to be asked is asked."""

    def has_lost_guest(self) -> bool:
        """Whether a host that serves no more does so because its guest hung up, as far as it tells."""

    def how_it_ended(self) -> str:
        """A sentence for a host that is not there any more."""

    def without_guest(self) -> str:
        """What became of it when its guest ended in the middle, to be added to a sentence on that."""

    def cpu_s(self) -> float | None:
        """Processor time that it has used, if that is known and all for this guest."""

    def stop(self) -> float | None:
        """Let it go; its processor time at the end, as `cpu_s`."""


class OwnHost:
    """A host's process of our own, for this guest alone."""

    def __init__(self, config: BootConfig) -> None:
        """Take the settings."""
        self._config = config
        self.verify_share = config.verify_share
        self._child: Child | None = None

    def listen(self, resources: contextlib.ExitStack, folder: Path, observer: Observer) -> Path:
        """Listen in this folder."""
        self._observer = observer
        self._ledger_fd, ledger = shared_memory(resources, "ledger", LEDGER_WORDS * 8)
        self.ledger = Ledger(np.frombuffer(ledger, np.int64, LEDGER_WORDS))
        self._listener = resources.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(folder / "balloon"))
        self._listener.listen(1)
        return folder / "balloon"

    def attach(self, resources: contextlib.ExitStack, guest: LinuxGuest) -> None:
        """Wait for the guest's connection, and start the process that serves it."""
        connection = resources.enter_context(_accept(self._listener, guest))
        fds = [connection.fileno(), self._ledger_fd]
        config = self._config.run_config()
        self._child = Child("host", lambda control_fd: HostSetup(config, control_fd, *fds), fds)
        resources.callback(self._child.close)
        connection.close()  # the guest must see the host's end close
        self._listener.close()

    @property
    def _process(self) -> Child:
        assert self._child is not None
        return self._child

    @property
    def ready(self) -> bool:
        """Whether the process serves."""
        return self._process.ready

    def fileno(self) -> int:
        """The channel to the process."""
        return self._process.channel.fileno()

    def hear(self) -> bool:
        """Take its messages."""
        for message in self._process.channel.receive():
            if isinstance(message, Stage):
                self._observer.stage(message.text)
            elif isinstance(message, Ready):
                self._process.ready = True
            elif isinstance(message, Ended):
                self._process.ended = message
        return not self._process.channel.closed

    def look(self, now_s: float) -> None:
        """Nothing is to be asked."""

    def without_guest(self) -> str:
        """It should end by itself."""
        noticed = self._process.await_end(time.monotonic() + STOP_MAX_S)
        return "; the host noticed and ended" if noticed else "; the host was stopped"

    def has_lost_guest(self) -> bool:
        """It ended in order, and nobody had asked it to."""
        ended = self._process.channel.closed and self._process.await_end(time.monotonic() + STOP_MAX_S)
        return ended and self._process.cause_of_death() is None

    def how_it_ended(self) -> str:
        """Why."""
        self._process.await_end(time.monotonic() + STOP_MAX_S)
        return self._process.cause_of_death() or "the host ended without a word"

    def cpu_s(self) -> float | None:
        """Of the process."""
        return process_cpu_s(self._process.process.pid)

    def stop(self) -> float | None:
        """Ask the process to end, and see to it."""
        self._process.stop()
        return None if self._process.ended is None else self._process.ended.cpu_s


class HypervisorHost:
    """The hypervisor's own balloon; nothing of it can be asked."""

    ledger = None
    verify_share = 0.0
    ready = True

    def listen(self, resources: contextlib.ExitStack, folder: Path, observer: Observer) -> None:
        """There is no socket."""

    def attach(self, resources: contextlib.ExitStack, guest: LinuxGuest) -> None:
        """It is attached from the beginning."""

    def fileno(self) -> None:
        """Nothing to wait for."""

    def hear(self) -> bool:
        """Nothing comes."""
        return True

    def look(self, now_s: float) -> None:
        """Nothing can be asked."""

    def has_lost_guest(self) -> bool:
        """It ends with the guest."""
        return False

    def how_it_ended(self) -> str:
        """It ends with the guest, and that is noticed first."""
        raise AssertionError("the hypervisor is the guest's process")

    def without_guest(self) -> str:
        """It ends with the guest."""
        return ""

    def cpu_s(self) -> None:
        """It is in the guest's."""

    def stop(self) -> None:
        """It ends with the guest."""


def _accept(listener: socket.socket, guest: LinuxGuest) -> socket.socket:
    """Wait for the guest's connection."""
    deadline_s = time.monotonic() + BOOT_MAX_S
    while time.monotonic() < deadline_s:
        ready = select.select([listener.fileno(), guest.fileno(), guest.pidfd], [], [], 1.0)[0]
        if listener.fileno() in ready:
            return listener.accept()[0]
        if guest.fileno() in ready:
            guest.markers()
        if guest.pidfd in ready:
            raise ChildProcessError(f"before it attached to the balloon, {guest.cause_of_death()}")
    raise TimeoutError(f"the guest did not attach to the balloon within {BOOT_MAX_S:g} s")
