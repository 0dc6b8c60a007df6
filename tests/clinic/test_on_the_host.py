"""VMs whose disease is their host's: how it keeps the guest's memory, and what else it holds for the VMM."""

import ctypes
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagetide.machine.linux.packages import GuestParts, QemuProgram
from pagetide.operate.balance import VMM
from tests.clinic.patient import FILL, FREE, MIB, Daemon, Patient, monitor, qemu_patient
from tests.clinic.ward import assert_first, assert_promise, assert_size, examine, finding_of
from tests.real_guests import real_guests

pytestmark = [pytest.mark.slow, real_guests(3)]

REPORTING = ["-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
SMALL = "echo 5 >/sys/module/page_reporting/parameters/page_reporting_order"
PRIVATE = "memory-backend-ram,share=off"

_SYS_PROCESS_MADVISE = 440
_MADV_COLLAPSE = 25
_MADV_PAGEOUT = 21


_NOT_NOW = (errno.EAGAIN, errno.EBUSY, errno.ENOMEM)
"""What MADV_COLLAPSE answers while a page is somebody else's for a moment, or no huge page is free (madvise(2))."""


def advise(patient: Patient, advice: int) -> None:
    """Have the host do to all of the guest's memory at once what it does at its leisure (process_madvise(2)).

    Of nothing, which is no huge page's worth, it makes none (EINVAL); what else it refuses is the test's failure.
    """
    advised_bytes = 0
    system_call = ctypes.CDLL(None, use_errno=True).syscall
    pid_fd, end_s = os.pidfd_open(patient.pid), time.monotonic() + 30
    try:
        for line in Path(f"/proc/{patient.pid}/maps").read_text().splitlines():
            start, end = (int(each, 16) for each in line.split()[0].split("-"))
            if end - start >= patient.ram_bytes and (" rw-p 00000000 00:00 0" in line or "memory-backend" in line):
                for at in range(start, end, 2 * MIB):
                    vector = (ctypes.c_ulong * 2)(at, 2 * MIB)
                    arguments = (_SYS_PROCESS_MADVISE, pid_fd, vector, ctypes.c_ulong(1), advice, ctypes.c_ulong(0))
                    while (done := system_call(*arguments)) < 0 and ctypes.get_errno() in _NOT_NOW:
                        assert time.monotonic() < end_s, os.strerror(ctypes.get_errno())
                        time.sleep(0.05)
                    assert done == 2 * MIB or ctypes.get_errno() == errno.EINVAL, os.strerror(ctypes.get_errno())
                    advised_bytes += max(0, done)
    finally:
        os.close(pid_fd)
    assert advised_bytes >= patient.ram_bytes / 2


@contextmanager
def swap_file(path: Path) -> Iterator[Path]:
    """Room of 512 MiB to swap out to."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 512 * MIB)
    path.chmod(0o600)
    for command in ("mkswap", "swapon"):
        subprocess.run([f"/usr/sbin/{command}", path], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run(["/usr/sbin/swapoff", path], capture_output=True, check=False)
        path.unlink()


def swapped_bytes(path: Path) -> int:
    """How much is in it, by the kernel."""
    (line,) = (line for line in Path("/proc/swaps").read_text().splitlines() if line.startswith(str(path)))
    return int(line.split()[3]) << 10


@pytest.mark.rare
def test_memory_in_the_hosts_swap(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """A tmpfs of the guest that nobody reads is in the host's swap: both are found, and swapoff reads it back."""
    with (
        swap_file(tmp_path / "swap") as swap,
        qemu_patient(installed, linux, tmp_path, REPORTING) as patient,
    ):
        patient.run(FILL)
        held_bytes = patient.settled_bytes()
        advise(patient, _MADV_PAGEOUT)
        found = examine(patient, str(tmp_path / "qmp"))
        assert_size(finding_of(found, "host-swap"), swapped_bytes(swap))
        assert_size(finding_of(found, "tmpfs"), 250 * MIB)
        assert found.balance.swapped_bytes >= 150 * MIB
        assert abs(patient.held_bytes() - held_bytes) <= 16 * MIB, "swapped out, and held all the same"
        subprocess.run(["/usr/sbin/swapoff", swap], check=True)
        assert [finding.cause for finding in examine(patient, str(tmp_path / "qmp")).findings] == ["tmpfs"]


def test_the_hosts_huge_pages_hold_what_was_given_back(
    installed: QemuProgram, linux: GuestParts, tmp_path: Path
) -> None:
    """Blocks of 128 KiB are given back, and then the host makes huge pages of what is left around them."""
    with qemu_patient(installed, linux, tmp_path, REPORTING, memory=PRIVATE, memory_file="") as patient:
        patient.run(SMALL)
        patient.run("for n in $(seq 300); do dd if=/dev/zero of=/mnt/$n bs=1M count=1 2>/dev/null; done")
        patient.run("for n in $(seq 300); do [ $((n % 3)) = 0 ] || rm /mnt/$n; done")
        rest_bytes = patient.settled_bytes()
        advise(patient, _MADV_COLLAPSE)
        held_bytes = patient.held_bytes()
        found = examine(patient, str(tmp_path / "qmp"))
        assert_first(found, "host-huge-pages", held_bytes - rest_bytes)
        assert_size(finding_of(found, "tmpfs"), 100 * MIB)


@pytest.mark.rare
def test_locked_memory_is_not_given_back(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """All of it is there from the start, and no discard succeeds; another start without the lock returns it.

    QEMU's own is locked, too: the buffer of its translator has a gigabyte, all of it there.
    """
    lock = ["-overcommit", "mem-lock=on"]
    with qemu_patient(installed, linux, tmp_path, [*REPORTING, *lock], memory=PRIVATE, memory_file="") as patient:
        held_bytes = patient.settled_bytes()
        found = examine(patient, str(tmp_path / "qmp"))
    with qemu_patient(installed, linux, tmp_path, REPORTING, memory=PRIVATE, memory_file="") as patient:
        came_back_bytes = held_bytes - patient.settled_bytes()
    finding = finding_of(found, "memory-locked")
    assert_size(finding, came_back_bytes)
    assert_promise(finding, came_back_bytes)


@pytest.mark.rare
def test_a_balloon_in_locked_memory_gives_nothing_back(
    installed: QemuProgram, linux: GuestParts, tmp_path: Path
) -> None:
    """Two diseases at once: the guest lacks what is in its balloon, and the host holds that and all that is free."""
    lock = ["-overcommit", "mem-lock=on"]
    with qemu_patient(installed, linux, tmp_path, [*REPORTING, *lock], memory=PRIVATE, memory_file="") as patient:
        qmp = monitor(tmp_path)
        qmp.ask("balloon", value=300 * MIB)
        patient.wait_until(lambda: bool(qmp.ask("query-balloon")["actual"] <= 300 * MIB))
        qmp.close()
        assert patient.settled_bytes() == 512 * MIB
        found = examine(patient, str(tmp_path / "qmp"))
        assert_size(finding_of(found, "balloon-without-effect"), 212 * MIB)
        others = {"vmm-own"}  # the translator's buffer is locked, too
        assert {finding.cause for finding in found.findings} - others == {"balloon-without-effect", "memory-locked"}


@pytest.mark.rare
def test_our_balloon_and_memory_that_is_private(
    attachable: QemuProgram, linux: GuestParts, daemon: Daemon, tmp_path: Path
) -> None:
    """The daemon cannot reach the guest's memory; once that is shared, the same load leaves none of it."""
    device = "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5,vq_size=128,config_size=16"
    balloon = ["-chardev", f"socket,id=c,path={daemon.socket}", "-device", device]
    left_bytes = []
    for memory, memory_file in ((PRIVATE, ""), ("memory-backend-memfd,share=on", "/memfd:memory-backend-memfd")):
        with qemu_patient(attachable, linux, tmp_path, balloon, memory=memory, memory_file=memory_file) as patient:
            patient.run(f"{FILL}; {FREE}")
            left_bytes.append(patient.settled_bytes())
            if not memory_file:
                found = examine(patient, control=daemon.control)
    finding = assert_first(found, "private-mapping", left_bytes[0] - left_bytes[1])
    assert_promise(finding, left_bytes[0] - left_bytes[1])


@pytest.mark.rare
def test_a_file_behind_a_private_mapping_keeps_its_pages(
    installed: QemuProgram, linux: GuestParts, tmp_path: Path
) -> None:
    """What the guest gives back are copies; once the file is mapped shared, the same load leaves none of it."""
    left_bytes = []
    for share in ("off", "on"):
        path = Path(f"/dev/shm/{tmp_path.name}-{share}")
        memory = f"memory-backend-file,mem-path={path},share={share}"
        try:
            with qemu_patient(installed, linux, tmp_path, REPORTING, memory=memory, memory_file=str(path)) as patient:
                patient.run(f"{FILL}; {FREE}")
                file_bytes = patient.settled_bytes()
                found = examine(patient, str(tmp_path / "qmp"))
                left_bytes.append(found.balance.held_bytes - found.balance.of(VMM))
                if share == "off":
                    finding = assert_first(found, "private-mapping-of-a-file", file_bytes)
                else:
                    assert found.findings == ()
        finally:
            path.unlink(missing_ok=True)
    assert_promise(finding, left_bytes[0] - left_bytes[1])


@pytest.mark.rare
def test_a_vmm_that_takes_much_itself(installed: QemuProgram, linux: GuestParts, tmp_path: Path) -> None:
    """300 MiB of QEMU's, which no guest has, beside what it always needs."""
    more = ["-object", "memory-backend-ram,id=more,size=300M,prealloc=on"]
    with qemu_patient(installed, linux, tmp_path, [*REPORTING, *more]) as patient:
        patient.settled_bytes()
        status = Path(f"/proc/{patient.pid}/status").read_text()
        (whole_kib,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        assert_first(examine(patient), "vmm-own", (whole_kib << 10) - patient.held_bytes())
