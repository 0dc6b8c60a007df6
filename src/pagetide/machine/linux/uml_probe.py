"""Whether a User-Mode Linux runs on this machine: it is booted to its first program, and that is remembered.

No version tells. Linux 6.1 and 6.12 as User-Mode Linux keep a process's registers in a buffer of fixed size, which the
state of a processor with AMX does not fit into: ptrace gives EFAULT, and the first program dies of it (seen with
Debian's 6.1.176 and 6.12.101; 7.2.7 runs). On other processors the same kernels are fine.
"""

import contextlib
import hashlib
import os
import re
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from pagetide.machine.linux.initrd import Entry, cpio_archive
from pagetide.machine.live.processes import how_it_died

PROBE_MAX_S = 60.0
"""How long a kernel may take to its first program; it takes a second on a machine that has nothing else to do."""

_INIT = b"""\
#!/bin/busybox sh
echo "@runs $(/bin/busybox uname -r)"
/bin/busybox poweroff -f
"""
_RUNS = re.compile(r"^@runs (\S+)\r?\n", re.MULTILINE)
_REGISTERS = re.compile(r"ptrace [gs]et fp regs failed.*")
_CPUINFO = Path("/proc/cpuinfo")
_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")


class UmlProbe(msgspec.Struct):
    """What became of a boot.

    Attributes:
        release: of the kernel, such as 7.2.7, if it ran a program; otherwise None.
        failure: why it did not, as the rest of a sentence that begins with its name; empty if it did.
        lasting: whether the same machine would always say so: a kernel that ran out of time or room may run later.
    """

    release: str | None
    failure: str = ""
    lasting: bool = True


def probe_uml(program: Path, busybox: Path, cache: Path) -> UmlProbe:
    """Boot a kernel, or remember how that went.

    Args:
        program: linux.uml, or what starts it.
        busybox: a static one, for the guest's first program.
        cache: a folder for what is remembered, made when needed. It is asked by what the program is and by what it
            runs on: another file, processor or kernel of this machine is another question.
    """
    remembered = cache / f"{_question(program)}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(remembered.read_bytes(), type=UmlProbe)
    probe = _boot(program, busybox)
    if probe.lasting:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs the next one a second
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=cache, delete=False) as new:
                new.write(msgspec.json.encode(probe))
            Path(new.name).rename(remembered)
    return probe


def _question(program: Path) -> str:
    """All that the answer depends on, as a name for a file."""
    path = program.resolve()
    found = path.stat()
    first = _CPUINFO.read_text().partition("\n\n")[0].splitlines()
    processor = [line for line in first if line.partition(":")[0].strip() in _PROCESSOR]
    parts = [str(path), str(found.st_size), str(found.st_mtime_ns), os.uname().release, *processor]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _boot(program: Path, busybox: Path) -> UmlProbe:
    with tempfile.TemporaryDirectory(prefix="pagetide-probe-") as name:
        folder = Path(name)
        initrd, console = folder / "initrd", folder / "console"
        initrd.write_bytes(_initrd(busybox.read_bytes()))
        command = [str(program.absolute()), "mem=64M", f"initrd={initrd}", f"uml_dir={folder}"]
        with console.open("wb") as output:
            try:
                process = subprocess.Popen(  # noqa: S603 - the program that was asked for
                    [*command, "con=null", "con0=fd:0,fd:1", "quiet", "panic=1"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                return UmlProbe(None, f"cannot be started: {error.strerror}", lasting=False)
        try:
            deadline_s = time.monotonic() + PROBE_MAX_S
            while (status := process.poll()) is None and time.monotonic() < deadline_s:
                if _RUNS.search(console.read_text(errors="replace")):
                    break  # what it is like at its end is not asked
                time.sleep(0.01)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its helpers outlive it
            process.wait()
        return _judge(console.read_text(errors="replace"), status)


def _judge(console: str, status: int | None) -> UmlProbe:
    """What a kernel's console and its exit status (None if it had to be killed) say."""
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    runs = _RUNS.search(console)
    if runs:
        return UmlProbe(runs[1])
    registers = _REGISTERS.search(console)
    if registers:
        return UmlProbe(
            None,
            "does not run on this processor, whose register state (with AMX, say) is larger than that kernel's buffer "
            f"for it: {registers[0]}",
        )
    panics = [line for line in lines if "Kernel panic" in line]
    words = f"; its last words were: {(panics or lines)[-1][:200]}" if lines else ""
    how = f"did not get to its first program in {PROBE_MAX_S:g} s" if status is None else how_it_died("guest", status)
    return UmlProbe(None, f"is no User-Mode Linux that runs here: {how}{words}", lasting=False)


def _initrd(busybox: bytes) -> bytes:
    return cpio_archive(
        [
            *(Entry(folder, stat.S_IFDIR | 0o755) for folder in ("bin", "dev")),
            Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry("init", stat.S_IFREG | 0o755, _INIT),
            Entry("bin/busybox", stat.S_IFREG | 0o755, busybox),
        ]
    )
