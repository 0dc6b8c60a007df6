"""A real Linux kernel as a process: User-Mode Linux, its console and its memory file.

Three things of it would outlive a starting process that is killed: its helpers, which share its memory and descriptors;
the memory itself; and the folder with its sockets. So a shell in its process group waits for the end of a pipe that
only the starting process holds, and then removes the folder and kills the group.
"""

import contextlib
import os
import select
import stat
import subprocess
import time
from pathlib import Path

from pagetide.machine.boot_config import BootConfig
from pagetide.machine.initrd import guest_initrd
from pagetide.machine.packages import UmlParts
from pagetide.machine.processes import STOP_MAX_S, how_it_died
from pagetide.memory.guest_ram import GuestRamError
from pagetide.units import format_size
from pagetide.virtio.balloon import DEVICE_ID

_CLEANER = '(read -r _ <"/proc/self/fd/$1"; rm -rf "$2"; kill -KILL 0) & shift 2; exec "$@"'
_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - UML makes its memory file there, nameless
_PANIC = "Kernel panic"
_LINE_MAX_BYTES = 1 << 16


class UmlGuest:
    """One guest, from its start until `stop`.

    Attributes:
        pid: the kernel's process.
        pidfd: readable once that has ended.
    """

    pid: int
    pidfd: int

    def __init__(self, parts: UmlParts, config: BootConfig, folder: Path, socket_path: Path) -> None:
        """Start it.

        Args:
            parts: its files.
            config: its settings.
            folder: an empty one, which is removed when the guest stops.
            socket_path: where its balloon's device listens.

        Raises:
            GuestRamError: /dev/shm has no room for its memory.
            OSError: the process cannot be started.
        """
        _check_room(config.ram_bytes)
        self._received = b""
        self._last_words = ""  # the last line, or that of a panic
        initrd_fd = os.memfd_create("pagetide-initrd", os.MFD_CLOEXEC)
        lifeline_fd, self._lifeline_fd = os.pipe()
        try:
            with open(initrd_fd, "wb", closefd=False) as initrd:
                initrd.write(guest_initrd(parts.busybox.read_bytes(), parts.module.read_bytes()))
            cleaner = ["/bin/sh", "-c", _CLEANER, "sh", str(lifeline_fd), str(folder)]
            self._process = subprocess.Popen(  # noqa: S603 - the shell gets all that varies as arguments
                [*cleaner, str(parts.kernel), *_kernel_arguments(config, folder, socket_path, initrd_fd)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[initrd_fd, lifeline_fd],
                start_new_session=True,
                env=os.environ | {"TMPDIR": _MEMORY_FOLDER},
            )
        except OSError:
            os.close(self._lifeline_fd)
            raise
        finally:
            os.close(initrd_fd)
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
                if stat.S_ISREG(found.st_mode) and found.st_size >= size_bytes:
                    return os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
        raise FileNotFoundError(f"User-Mode Linux has no memory file of {size_bytes} bytes in {_MEMORY_FOLDER}")

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


def _check_room(size_bytes: int) -> None:
    """Find out before the guest does, which would die of SIGBUS."""
    space = os.statvfs(_MEMORY_FOLDER)
    room_bytes = space.f_bavail * space.f_frsize
    if room_bytes < size_bytes:
        raise GuestRamError(
            f"{format_size(size_bytes)} of guest RAM do not fit into {_MEMORY_FOLDER}, where User-Mode Linux has it: "
            f"only {format_size(room_bytes)} are free; as root, mount -o remount,size={size_bytes >> 19}M "
            f"{_MEMORY_FOLDER} makes room"
        )


def _kernel_arguments(config: BootConfig, folder: Path, socket_path: Path, initrd_fd: int) -> list[str]:
    arguments = [
        f"mem={config.ram_bytes >> 20}M",
        f"initrd=/proc/self/fd/{initrd_fd}",
        f"virtio_uml.device={socket_path}:{DEVICE_ID}",
        f"uml_dir={folder}",
        "con=null",
        "con0=fd:0,fd:1",
        "quiet",
        "panic=1",
    ]
    return arguments if config.order is None else [*arguments, f"reporting_order={config.order}"]
