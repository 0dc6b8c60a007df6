"""Whether a User-Mode Linux runs here is found out by booting it, once for each file and machine."""

import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pagetide.machine.linux import uml_probe
from pagetide.machine.linux.packages import GuestParts
from pagetide.machine.linux.uml_probe import UmlProbe, probe_uml
from tests.host.guest.served_guest import wait_readable
from tests.real_guests import real_guests

pytestmark = real_guests(1)

RUNS = "echo @runs 6.1.7"
REGISTERS = "echo userspace - ptrace set fp regs failed, errno = 14; exit 134"


class Kernel:
    """A program in place of a kernel, which counts its starts."""

    def __init__(self, folder: Path) -> None:
        self.path, self.starts, self.busybox = folder / "linux.uml", folder / "starts", folder / "busybox"
        self.cache = folder / "cache"
        self.busybox.touch()

    def does(self, script: str) -> None:
        """Have it do this when it is started."""
        self.path.write_text(f"#!/bin/sh\necho >>{self.starts}\n{script}\n")
        self.path.chmod(0o755)

    def probe(self) -> UmlProbe:
        """Ask."""
        return probe_uml(self.path, self.busybox, self.cache)

    def count(self) -> int:
        """How often it was started."""
        return len(self.starts.read_text())


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """One that runs."""
    kernel = Kernel(tmp_path)
    kernel.does(RUNS)
    return kernel


def test_a_boot_is_paid_for_once(kernel: Kernel) -> None:
    """The answer is remembered, and asked again when the file is another one."""
    assert kernel.probe() == kernel.probe() == UmlProbe("6.1.7")
    assert kernel.count() == 1
    kernel.does(RUNS.replace("6.1.7", "6.1.17"))
    assert kernel.probe().release == "6.1.17"
    os.utime(kernel.path, ns=(0, 0))
    assert kernel.probe().release == "6.1.17"
    assert kernel.count() == 3


def test_another_processor_or_kernel_is_asked_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that came along from another machine has that one's answers; a clock that went faster changes nothing."""
    kernel.probe()
    text = Path("/proc/cpuinfo").read_text()
    info = kernel.starts.with_name("cpuinfo")
    monkeypatch.setattr(uml_probe, "_CPUINFO", info)
    for more, starts in (("", 1), ("cpu MHz\t: 1.5\n", 1), ("flags\t: amx_tile\n", 2)):
        info.write_text(more + text)
        kernel.probe()
        assert kernel.count() == starts
    name = os.uname()
    other = os.uname_result((name.sysname, name.nodename, "0.1", name.version, name.machine))
    monkeypatch.setattr(os, "uname", lambda: other)
    kernel.probe()
    assert kernel.count() == 3


def test_what_the_processor_forbids_is_remembered(kernel: Kernel) -> None:
    """The sentence has the cause, which the panic's own line hides."""
    kernel.does(REGISTERS)
    assert kernel.probe() == kernel.probe()
    assert kernel.probe().release is None
    assert kernel.probe().failure.endswith(
        "larger than that kernel's buffer for it: ptrace set fp regs failed, errno = 14"
    )
    assert kernel.count() == 1


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "ended with status 3$"),
        ("echo; echo I am a shell; exit 0", "ended with status 0; its last words were: I am a shell"),
        (
            "echo Kernel panic - no memory; echo Call trace; kill -ABRT $$",
            "SIGABRT; its last .*: Kernel panic - no memory",
        ),
    ],
)
def test_what_may_have_been_chance_is_tried_again(kernel: Kernel, script: str, why: str) -> None:
    """A kernel that fails in any other way is not remembered for it, and what it said is told."""
    kernel.does(script)
    failure = kernel.probe().failure
    assert failure.startswith("is no User-Mode Linux that runs here: the guest's process ")
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(failure)
    kernel.probe()
    assert kernel.count() == 2


def test_a_kernel_that_hangs_is_given_up(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all its processes; so is what is no program at all."""
    told, begun = kernel.starts.with_name("pid"), iter([0.0])

    def clock_s() -> float:
        return next(begun, float(told.exists() and told.read_text().endswith("\n")))

    monkeypatch.setattr(uml_probe, "PROBE_MAX_S", 1.0)
    monkeypatch.setattr(uml_probe, "time", SimpleNamespace(monotonic=clock_s, sleep=time.sleep))
    kernel.does(f"sleep 1000 & echo $! >>{told}; wait")
    assert kernel.probe().failure.endswith("did not get to its first program in 1 s")
    pid = int(told.read_text())
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        wait_readable(pidfd)
        os.close(pidfd)
    kernel.path.write_bytes(b"\x7fELF")
    assert kernel.probe().failure.startswith("cannot be started: ")


def test_a_cache_that_cannot_be_written_or_read_is_done_without(kernel: Kernel) -> None:
    """The answer is right all the same."""
    kernel.cache.touch()
    assert kernel.probe() == kernel.probe() == UmlProbe("6.1.7")
    kernel.cache.unlink()
    kernel.probe()
    (remembered,) = kernel.cache.iterdir()
    remembered.write_text("{")
    assert kernel.probe() == UmlProbe("6.1.7")


def test_a_real_kernel_boots(uml: GuestParts, tmp_path: Path) -> None:
    """To its first program, which tells its release; nothing of it is left."""
    assert probe_uml(uml.kernel, uml.busybox, tmp_path / "cache") == UmlProbe(uml.release)
