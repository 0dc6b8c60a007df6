"""Real VMs for the clinic: a Linux guest that runs what it is told in its console, under QEMU or User-Mode Linux."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from pagetide.machine.linux.initrd import initrd_of
from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.machine.qemu.qmp import Qmp
from pagetide.memory.residency import resident_bytes
from pagetide.operate.guest.script import GUEST_SCRIPT
from pagetide.processes import process_cpu_s

MIB = 1 << 20

INIT = """\
#!/bin/busybox sh
export PATH=/bin
stty -echo -icanon
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs -o size=100% none /mnt
for module in /modules/*; do
    insmod "$module"
done
echo "@ready"
while read -r line; do
    eval "$line" 2>&1
    echo "@done $?"
done
"""


def fill(size_mib: int) -> str:
    """A command by which a guest comes to hold so much in a file of its tmpfs; FREE removes it."""
    return f"dd if=/dev/zero of=/mnt/fill bs=1M count={size_mib} 2>/dev/null"


def fill_with_contents(size_mib: int) -> str:
    """About as much, of pages that are no zeros: busybox has 2 MiB."""
    return f"for n in $(seq {size_mib // 2}); do cat /bin/busybox; done >/mnt/fill"


FILL, FREE = fill(250), "rm /mnt/fill"

_APPLETS = (
    *("cat", "chmod", "dd", "grep", "insmod", "ls", "mkdir", "mount", "poweroff", "reboot"),
    *("rm", "sh", "sleep", "stty", "seq", "sync"),
)
_ANSWER_MAX_S = 120.0
_MOMENT_S = 0.5


def clinic_initrd(parts: GuestParts) -> bytes:
    """An initial file system whose init evaluates each line of the console and says `@done STATUS`."""
    return initrd_of({"init": INIT, "why.sh": GUEST_SCRIPT}, _APPLETS, parts.busybox.read_bytes(), parts.modules)


class Patient:
    """One VM from its start until the end of the `with` block.

    Attributes:
        pid: of the process that runs it.
        ram_bytes: how much memory it has.
    """

    def __init__(
        self, command: Sequence[str], ram_bytes: int, memory_file: str, *, boots: bool = True, **environment: str
    ) -> None:
        """Start it; `memory_file` is how its memory's name begins, as /proc/PID/fd has it; none if that is private.

        One that does not boot is to have its guest from elsewhere.
        """
        self.ram_bytes, self._memory_file, self._boots = ram_bytes, memory_file, boots
        self._rest = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            if self._boots:
                self._lines_until("@ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.pid, signal.SIGKILL)  # User-Mode Linux has helpers that outlive it, and hold its memory
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def kill(self) -> None:
        """End it from another thread, if the block has not ended."""
        if self._process.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)

    def run(self, command: str, *, status: int = 0) -> str:
        """Have the guest's shell evaluate a line; what it writes."""
        self._tell(command)
        lines, told = self._lines_until("@done")
        assert int(told) == status, f"{command!r} ended with {told}: {lines[-5:]}"
        return "".join(f"{line}\n" for line in lines)

    def reboot(self) -> None:
        """Have the guest start again in the same process, and wait until it has."""
        self._tell("reboot -f")
        self._lines_until("@ready")

    def power_off(self) -> None:
        """Have the guest switch itself off, and wait until its process has ended."""
        pidfd = os.pidfd_open(self.pid)
        try:
            self._tell("poweroff -f")
            assert select.select([pidfd], [], [], _ANSWER_MAX_S)[0], "the guest does not switch itself off"
        finally:
            os.close(pidfd)

    def guest_text(self) -> bytes:
        """What the guest script writes."""
        return self.run("sh /why.sh").encode()

    def text_right_after(self, command: str) -> bytes:
        """What the guest script would write at the very end of a command, long before the script itself would be done.

        What a free changes is read then; all else was read before. No report is due when the command begins, so the
        first of what it frees is two seconds away.
        """
        changed = "meminfo", "vmstat", "buddyinfo", "zoneinfo"
        before = self.guest_text().decode()
        self.settled_bytes()
        after = self.run(f"{command}; " + "; ".join(f"echo @pagetide {name}; cat /proc/{name}" for name in changed))
        parts = {part.split()[0]: part for text in (before, after) for part in text.split("@pagetide ")[1:]}
        return "".join(f"@pagetide {part}" for part in parts.values()).encode()

    def held_bytes(self) -> int:
        """What the host holds of its memory file, by st_blocks: the truth that answers are held against.

        Of private memory, what the kernel says of the mapping that is as large, in RAM and in swap.
        """
        if not self._memory_file:
            return self._private_bytes()
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            if str(entry.readlink()).startswith(self._memory_file) and entry.stat().st_size >= self.ram_bytes:
                fd = os.open(entry, os.O_RDONLY)
                try:
                    return resident_bytes(fd)
                finally:
                    os.close(fd)
        raise FileNotFoundError(self._memory_file)

    def _private_bytes(self) -> int:
        start, size_bytes, held_kib = 0, 0, 0
        for line in Path(f"/proc/{self.pid}/smaps").read_text().splitlines():
            if (head := re.match("([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0", line)) is not None:
                start, end = (int(head[each], 16) for each in (1, 2))
                size_bytes = end - start
            elif re.match("[0-9a-f]+-", line):
                size_bytes = 0
            elif size_bytes >= self.ram_bytes and line.startswith(("Rss:", "Swap:")):
                held_kib += int(line.split()[1])
        return held_kib << 10

    def settled_bytes(self, *, quiet_s: float = 4.5, limit_s: float = 60.0) -> int:
        """What is held once that has not fallen for so long, or the limit is over.

        While this machine stands still nobody looks, and nothing falls: between two looks no more than a moment counts.
        """
        held, still_s = self.held_bytes(), 0.0
        looked_s, end_s = time.monotonic(), time.monotonic() + limit_s
        while still_s < quiet_s and looked_s < end_s:
            time.sleep(0.1)
            now, before_s, looked_s = self.held_bytes(), looked_s, time.monotonic()
            still_s += min(looked_s - before_s, _MOMENT_S)
            if now < held - 64 * 1024:
                held, still_s = now, 0.0
        return self.held_bytes()

    def wait_until(self, is_so: Callable[[], bool], *, limit_s: float = 60.0) -> None:
        """Ask again and again until something is so."""
        end_s = time.monotonic() + limit_s
        while not is_so():
            assert time.monotonic() < end_s
            time.sleep(0.2)

    def cpu_s(self) -> float | None:
        """Processor time of its process."""
        return process_cpu_s(self.pid)

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), command.encode() + b"\n")

    def _lines_until(self, marker: str) -> tuple[list[str], str]:
        assert self._process.stdout is not None
        lines: list[str] = []
        end_s = time.monotonic() + _ANSWER_MAX_S
        while True:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                text = line.decode(errors="replace").rstrip("\r")
                if text.startswith(marker):
                    return lines, text.removeprefix(marker).strip()
                lines.append(text)
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"the guest did not say {marker}; its last lines: {lines[-5:]}"
            if select.select([self._process.stdout], [], [], left_s)[0]:
                data = os.read(self._process.stdout.fileno(), 65536)
                assert data, f"the guest ended before it said {marker}; its last lines: {lines[-5:]}"
                self._rest += data


def uml_patient(
    parts: GuestParts, folder: Path, balloon: Path | None, *, ram_mib: int = 512, more: str = ""
) -> Patient:
    """A User-Mode Linux, with its balloon behind this socket if it is to have one."""
    initrd = folder / "initrd"
    initrd.write_bytes(clinic_initrd(parts))
    command = [str(parts.kernel), f"mem={ram_mib}M", f"initrd={initrd}", f"uml_dir={folder}"]
    command += [f"virtio_uml.device={balloon}:5"] if balloon else []
    command += ["con=null", "con0=fd:0,fd:1", "quiet", "panic=1", *more.split()]
    return Patient(command, ram_mib * MIB, "/dev/shm/", TMPDIR="/dev/shm")


def qemu_patient(
    program: QemuProgram,
    parts: GuestParts,
    folder: Path,
    arguments: Sequence[str],
    *,
    ram_mib: int = 512,
    memory: str = "memory-backend-memfd,share=on",
    memory_file: str = "/memfd:memory-backend-memfd",
    append: str = "",
    boots: bool = True,
    reboots: bool = False,
) -> Patient:
    """A QEMU with a monitor at `folder / "qmp"` and these devices; `memory_file` is empty for private memory.

    It ends when the guest wants to be started again, unless it `reboots`.
    """
    initrd = folder / "initrd"
    initrd.write_bytes(clinic_initrd(parts))
    kind, _, options = memory.partition(",")
    command = [
        str(program.path), "-nodefaults", "-no-user-config", "-display", "none",
        *([] if reboots else ["-no-reboot"]), "-accel", "tcg", "-cpu", "max",
        "-machine", "pc,memory-backend=ram", "-m", f"{ram_mib}M",
        "-object", f"{kind},id=ram,size={ram_mib}M,{options}",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-kernel", str(parts.kernel), "-initrd", str(initrd), "-append", f"console=ttyS0 quiet panic=-1 {append}",
        "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off", *arguments,
    ]  # fmt: skip
    return Patient(command, ram_mib * MIB, memory_file, boots=boots)


class Daemon:
    """A `pagetide serve` with one socket, until the end of the `with` block."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self.socket, self.control = folder / "vm1.sock", folder / "control.sock"
        command = [sys.executable, "-m", "pagetide.cli", "serve", "--socket", self.socket, "--control", self.control]
        self._process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        while "listening" not in self._process.stderr.readline():
            assert self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def ctl(self, *words: str) -> str:
        """Tell it something."""
        command = [sys.executable, "-m", "pagetide.cli", "ctl", *words, "--control", str(self.control)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def monitor(folder: Path) -> Qmp:
    """A connection to the monitor of a QEMU in this folder."""
    import socket

    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(folder / "qmp"))
    return Qmp(sock)
