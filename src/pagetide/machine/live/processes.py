"""What the starting process needs to run others: our own processes, shared memory, and why a process ended."""

import contextlib
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from pagetide.machine.messages import Channel, Command, Ended, GuestSetup, HostSetup

STOP_MAX_S = 3.0
"""How long a process that was asked to end may take."""


class Child:
    """A process of ours, and the channel to it."""

    def __init__(self, name: str, setup_of: Callable[[int], GuestSetup | HostSetup], fds: list[int]) -> None:
        """Start `pagetide.machine.NAME_process`.

        Args:
            name: `guest` or `host`.
            setup_of: what it is told, given the descriptor of its end of the channel.
            fds: the other descriptors that it inherits.

        Raises:
            OSError: it could not be started.
        """
        self.name = name
        self.ready = False
        self.ended: Ended | None = None
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        setup = msgspec.json.encode(setup_of(theirs.fileno())).decode()
        try:
            with theirs:
                self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-m", f"pagetide.machine.live.{name}_process", setup],
                    pass_fds=[theirs.fileno(), *fds],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError:
            self.channel.close()
            raise

    def cause_of_death(self) -> str | None:
        """A sentence that says what ended the process; None if it ended in order, or lives."""
        status = self.process.poll()
        if self.ended is not None and self.ended.failure is not None:
            return f"the {self.name} stopped: {self.ended.failure}"
        return how_it_died(self.name, status) if status else None

    def await_end(self, deadline_s: float) -> bool:
        """Wait for it to end by itself, taking its last messages; whether it did."""
        while not self.channel.closed and time.monotonic() < deadline_s:
            if select.select([self.channel], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                self.ended = next((m for m in self.channel.receive() if isinstance(m, Ended)), self.ended)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline_s - time.monotonic()))
        return self.process.poll() is not None

    def stop(self) -> None:
        """Ask it to end, take its last words, and see to it that it does."""
        if self.process.poll() is None:
            self.channel.send(Command("stop"))
        if not self.await_end(time.monotonic() + STOP_MAX_S):
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """Kill it if it still runs, and close the channel."""
        self.process.kill()
        self.process.wait()
        self.channel.close()


def how_it_died(name: str, status: int) -> str:
    """A sentence for a process that ended with this status, as `Popen.returncode` has it."""
    hint = "; the machine may be out of memory" if -status in (signal.SIGKILL, signal.SIGBUS) else ""
    how = f"was killed by {signal.Signals(-status).name}{hint}" if status < 0 else f"ended with status {status}"
    return f"the {name}'s process {how}"


def shared_memory(resources: contextlib.ExitStack, name: str, size_bytes: int) -> tuple[int, mmap.mmap]:
    """A memory file of this size, and this process's view of it."""
    fd = os.memfd_create(f"pagetide-{name}", os.MFD_CLOEXEC)
    resources.callback(os.close, fd)
    os.ftruncate(fd, size_bytes)
    return fd, mmap.mmap(fd, size_bytes)
