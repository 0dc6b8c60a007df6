"""A real Linux guest as a process, whatever runs it: its console and its memory file.

Three things of it could outlive a starting process that is killed: the process and its helpers, which may share its
memory and descriptors; the memory itself; and the folder with its files. So a shell in its process group waits for the
end of a pipe that only the starting process holds, and then removes the folder and kills the group.
"""

import contextlib
import os
import select
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.initrd import guest_initrd
from pagetide.machine.linux.packages import GuestParts
from pagetide.machine.live.processes import STOP_MAX_S, how_it_died

_CLEANER = '(read -r _ <"/proc/self/fd/$1"; rm -rf "$2"; kill -KILL 0) & shift 2; exec "$@"'
_PANIC = "Kernel panic"
_LINE_MAX_BYTES = 1 << 16


class Hypervisor(Protocol):
    """What runs a guest's kernel, as one process whose standard input and output are the guest's console.

    Attributes:
        name: for people.
        parts: the guest's files.
        environment: what its process finds there besides ours.
        memory_file: how the name of the guest's memory begins, as /proc/PID/fd has it.
        ram_bytes_min: the smallest guest that boots.
        is_balloon: whether the balloon is its own device, and none behind a socket.
    """

    name: str
    parts: GuestParts
    environment: Mapping[str, str]
    memory_file: str
    ram_bytes_min: int
    is_balloon: bool

    def check_room(self, size_bytes: int) -> None:
        """Find out before the guest does, which would die of SIGBUS.

        Raises:
            GuestRamError: there is no room for memory of this size.
        """

    def command(self, config: BootConfig, folder: Path, initrd: Path, balloon: Path | None) -> list[str]:
        """The command line for a guest whose balloon is behind this socket, if it is behind one."""


class LinuxGuest:
    """One guest, from its start until `stop`.

    Attributes:
        pid: the kernel's process.
        pidfd: readable once that has ended.
    """

    pid: int
    pidfd: int

    def __init__(self, hypervisor: Hypervisor, config: BootConfig, folder: Path, balloon: Path | None) -> None:
        """Start it.

        Args:
            hypervisor: what runs it.
            config: its settings.
            folder: one of its own, which is removed when the guest stops.
            balloon: where its balloon's device listens; None if it is the hypervisor's own.

        Raises:
            GuestRamError: there is no room for its memory.
            OSError: the process cannot be started.
        """
        hypervisor.check_room(config.ram_bytes)
        self._hypervisor = hypervisor
        self._received = b""
        self._last_words = ""  # the last line, or that of a panic
        initrd = folder / "initrd"
        initrd.write_bytes(guest_initrd(hypervisor.parts.busybox.read_bytes(), hypervisor.parts.modules))
        lifeline_fd, self._lifeline_fd = os.pipe()
        try:
            cleaner = ["/bin/sh", "-c", _CLEANER, "sh", str(lifeline_fd), str(folder)]
            self._process = subprocess.Popen(  # noqa: S603 - the shell gets all that varies as arguments
                [*cleaner, *hypervisor.command(config, folder, initrd, balloon)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[lifeline_fd],
                start_new_session=True,
                env={**os.environ, **hypervisor.environment},
            )
        except OSError:
            os.close(self._lifeline_fd)
            raise
        finally:
            os.close(lifeline_fd)
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """The console's output, for selectors."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def say(self, command: str) -> None:
        """Give init a command; a guest that is gone is noticed by its pidfd."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), command.encode() + b"\n")

    def markers(self) -> list[str]:
        """Wait until something comes on the console; the marker lines in it, without the `@`."""
        return [text[1:] for text in self._take_console() if text.startswith("@")]

    def _take_console(self) -> list[str]:
        *lines, self._received = (self._received + os.read(self.fileno(), 65536)).split(b"\n")
        self._received = self._received[-_LINE_MAX_BYTES:]
        texts = [line.decode(errors="replace").strip() for line in lines]
        for text in texts:
            if text and text[0] != "@" and _PANIC not in self._last_words:
                self._last_words = text
        return texts

    def open_memory(self, size_bytes: int) -> int:
        """A descriptor of the file that is the guest's memory, to read.

        Raises:
            FileNotFoundError: the process has no memory file of this size at least.
        """
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat()
                is_memory = str(entry.readlink()).startswith(self._hypervisor.memory_file)
                if is_memory and stat.S_ISREG(found.st_mode) and found.st_size >= size_bytes:
                    return os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
        wanted = f"{self._hypervisor.memory_file}* of {size_bytes} bytes"
        raise FileNotFoundError(f"{self._hypervisor.name} has no memory file {wanted} open")

    def cause_of_death(self) -> str:
        """A sentence that says how it ended, once it has, with what it said of it on the console."""
        while select.select([self], [], [], 0)[0] and self._take_console():
            pass
        status = self._process.wait()
        how = how_it_died("guest", status) if status else "the guest switched itself off"
        told = self._last_words and (status >= 0 or _PANIC in self._last_words)
        return f"{how}; its last words were: {self._last_words}" if told else how

    def await_end(self, deadline_s: float) -> bool:
        """Wait for it to end by itself; whether it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        return self._process.poll() is not None

    def stop(self) -> None:
        """Kill what is left of it and wait until its memory is free; may be repeated."""
        if self._lifeline_fd < 0:
            return
        os.close(self._lifeline_fd)  # the shell kills the group
        self._lifeline_fd = -1
        deadline_s = time.monotonic() + STOP_MAX_S
        # The console ends with the last process that holds it.
        while select.select([self], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            if not os.read(self.fileno(), 65536):
                break
        self._process.kill()
        self._process.wait()
        os.close(self.pidfd)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
