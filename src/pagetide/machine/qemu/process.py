"""A stock QEMU with a balloon and without a guest: a stopped machine whose CPU is to be played through qtest.

The machine's RAM is a memory file, so rings and blocks are written straight into it, and what the device discarded is
read from the file. The machine's own CPU is stopped, and when the monitor lets it go on, so that the machine's clock
runs, its firmware is one that halts. QEMU dies with the process that started it.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from pagetide.linux import memfd_create
from pagetide.machine.config import QEMU_RAM_BYTES_MAX
from pagetide.machine.qemu.qmp import Qmp, QmpError

QEMU = "qemu-system-x86_64"
"""The program; Debian's package qemu-system-x86."""

_END_MAX_S = 5.0
_FIRMWARE_BYTES = 1 << 16
_RESET_VECTOR = _FIRMWARE_BYTES - 16
_HALT = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jump to the hlt


class QemuError(OSError):
    """QEMU is not there, or did not start; the message says what to do."""


class QemuProcess:
    """A running QEMU.

    Attributes:
        pid: of QEMU.
        pidfd: readable once it has ended.
        ram_fd: the machine's memory file, open for whoever plays its CPU.
        qtest: the socket at which QEMU listens to that one.
        qmp: QEMU's monitor; the balloon is called `balloon0` there.
    """

    pid: int
    pidfd: int
    ram_fd: int
    qtest: socket.socket
    qmp: Qmp

    def __init__(self, ram_bytes: int, *, properties: str = "free-page-reporting=on", program: str = QEMU) -> None:
        """Start QEMU.

        Args:
            ram_bytes: memory of the machine, at most QEMU_RAM_BYTES_MAX, so that it is in one piece.
            properties: of the balloon, as QEMU's `-device` takes them.
            program: the QEMU to start.

        Raises:
            QemuError: it is not installed, or did not start.
        """
        if shutil.which(program) is None:
            raise QemuError(f"{program} is not installed: as root, apt-get install qemu-system-x86 seabios")
        assert ram_bytes <= QEMU_RAM_BYTES_MAX
        self.qtest, theirs = socket.socketpair()
        monitor, their_monitor = socket.socketpair()
        firmware_fd = _halting_firmware()
        self._process = subprocess.Popen(  # noqa: S603 - what the caller asked for
            [
                "/usr/bin/setpriv", "--pdeathsig", "KILL",
                program, "-machine", "pc,memory-backend=ram", "-m", f"{ram_bytes >> 20}M", "-accel", "tcg", "-S",
                "-object", f"memory-backend-memfd,id=ram,size={ram_bytes},share=on", "-display", "none", "-nodefaults",
                "-chardev", f"socket,id=qtest,fd={theirs.fileno()}", "-qtest", "chardev:qtest", "-qtest-log", "none",
                "-chardev", f"socket,id=qmp,fd={their_monitor.fileno()}", "-mon", "chardev=qmp,mode=control",
                "-bios", f"/proc/self/fd/{firmware_fd}", "-object", "iothread,id=iothread0",
                "-device", f"virtio-balloon-pci,id=balloon0,{properties}",
            ],
            pass_fds=[theirs.fileno(), their_monitor.fileno(), firmware_fd],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        their_monitor.close()
        os.close(firmware_fd)
        self.qmp = Qmp(monitor)
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        try:
            self.qmp.ask("query-status")
            self.ram_fd = _open_ram(self.pid)
        except (QmpError, OSError) as error:
            said = self.end().strip().splitlines()
            raise QemuError(f"{program} did not start: {said[-1] if said else error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End QEMU and let go of its memory file."""
        self.end()
        os.close(self.ram_fd)

    def end(self) -> str:
        """End QEMU, whose memory file stays; what it had to say."""
        self.qtest.close()
        self.qmp.close()
        self._process.terminate()
        try:
            self._process.wait(_END_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return ""
        with self._process.stderr:
            return self._process.stderr.read()


def _halting_firmware() -> int:
    """A memory file with firmware that halts at the reset vector."""
    fd = memfd_create("halting-firmware")
    os.ftruncate(fd, _FIRMWARE_BYTES)
    os.pwrite(fd, _HALT, _RESET_VECTOR)
    return fd


def _open_ram(pid: int) -> int:
    """The memory file of a QEMU's memory-backend-memfd."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith("/memfd:memory-backend-memfd"):
                return os.open(link, os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError("QEMU has no memory-backend-memfd open")
