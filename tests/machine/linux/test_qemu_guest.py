"""A real Linux kernel under QEMU: on QEMU's own balloon, and on ours where the QEMU can attach to it.

Without the kernel and QEMU these tests fail: `make test` installs them. A QEMU that can attach to a vhost-user balloon
is fetched by it on Debian as root; elsewhere its tests are skipped, but never in continuous integration.
"""

from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from pagetide.machine.linux.balloon_host import HypervisorHost, OwnHost
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.machine import LinuxMachine
from pagetide.machine.linux.packages import GuestParts, QemuProgram, find_linux, find_qemu
from pagetide.machine.linux.qemu import Qemu
from pagetide.machine.result import RunResult
from pagetide.memory.guest_ram import GuestRamError
from tests.machine.linux.guests import SMALL, folders_of_guests, gone, kill_guest, processes_of_guests, when_full
from tests.machine.watcher import MIB, Watcher
from tests.real_guests import real_guests

pytestmark = [pytest.mark.usefixtures("folder_for_guests"), real_guests(2)]


def run_peer(watcher: Watcher | None = None, **changes: Any) -> RunResult:
    """Run the small guest on QEMU's own balloon, with these settings changed."""
    config = msgspec.structs.replace(SMALL, **changes)
    config.check()
    qemu = Qemu(find_linux(), find_qemu(generic=False), is_balloon=True)
    return LinuxMachine(config, qemu, HypervisorHost()).run(watcher or Watcher())


def run_ours(program: QemuProgram, config: BootConfig) -> RunResult:
    """Run a guest on our balloon."""
    config.check()
    return LinuxMachine(config, Qemu(find_linux(), program, is_balloon=False), OwnHost(config)).run(Watcher())


def test_linux_gives_back_to_qemu_what_it_freed() -> None:
    """On QEMU's own balloon most comes back, read from QEMU's memory file; what no ledger tells is None."""
    result = run_peer()
    assert result.outcome == "complete"
    assert result.guest.startswith("Linux ")
    assert result.guest.endswith(", its own balloon)")
    (burst,) = result.bursts
    assert burst.eaten_bytes == 150 * MIB
    assert burst.returned_bytes >= 0.98 * burst.eaten_bytes
    assert burst.return_lag_s is not None
    assert burst.verified_bytes is None
    untold = (result.reports, result.discarded_bytes, result.verified_bytes, result.skipped_bytes, result.host_cpu_s)
    assert untold == (None,) * 5
    assert not result.verified_disagrees
    assert result.guest_cpu_s
    assert result.config.order == 3
    assert result.config.device == "qemu"
    assert result.config.verify_share == 0
    assert max(result.samples.guest_used_bytes) >= 150 * MIB
    assert gone(processes_of_guests)
    assert folders_of_guests() == []


def test_a_qemu_that_is_killed_is_noticed() -> None:
    """The sentence names the guest and the signal, and what was measured is there."""
    result = run_peer(when_full(lambda: kill_guest("qemu-system")), hold_s=30.0)
    assert result.outcome.startswith("the guest's process was killed by SIGKILL")
    assert result.peak_resident_bytes > 140 * MIB
    assert gone(processes_of_guests)


def test_a_qemu_that_does_not_start_says_why(tmp_path: Path) -> None:
    """QEMU's own last words and its status are in the outcome."""
    kernel = tmp_path / "vmlinuz-0"
    kernel.write_bytes(b"this is no kernel")
    parts = GuestParts(kernel, "0", *find_linux()[2:])
    qemu = Qemu(parts, find_qemu(generic=False), is_balloon=True)
    result = LinuxMachine(SMALL, qemu, HypervisorHost()).run(Watcher())
    assert result.outcome.startswith("the guest's process ended with status 1; its last words were: ")
    assert "kernel" in result.outcome
    assert result.bursts == []
    assert folders_of_guests() == []


def test_no_room_for_its_memory_is_told_before() -> None:
    """A guest that the machine has no memory for is not started."""
    program = QemuProgram(Path("/bin/false"), "0")
    config = BootConfig(ram_bytes=psutil.virtual_memory().total // (4 * MIB) * 4 * MIB + 64 * MIB)
    with pytest.raises(GuestRamError, match="guest RAM do not fit"):
        LinuxMachine(config, Qemu(find_linux(), program, is_balloon=True), HypervisorHost()).run(Watcher())


def test_the_command_line_says_which_balloon() -> None:
    """QEMU's own, or one behind a socket with all the queues that a balloon can have; commas in a path are doubled."""
    parts, program = GuestParts(Path("/k"), "6.1", [], Path("/b")), QemuProgram(Path("/q"), "11")
    own = Qemu(parts, program, is_balloon=True).command(SMALL, Path("/f"), Path("/f/initrd"), None)
    assert own[-2:] == ["-device", "virtio-balloon-pci,free-page-reporting=on"]
    assert own[own.index("-append") + 1].endswith(" reporting_order=3")
    ours = Qemu(parts, program, is_balloon=False).command(SMALL, Path("/f"), Path("/f/initrd"), Path("/a,b/s"))
    assert ours[-4:] == [
        "-chardev", "socket,id=balloon,path=/a,,b/s", "-device",
        "vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=128,config_size=16",
    ]  # fmt: skip


def test_linux_under_a_newer_qemu_gives_back_to_us(attachable: QemuProgram) -> None:
    """QEMU's generic vhost-user device attaches the guest to our host: most comes back, all of it verified.

    3 GiB lie on both sides of a hole below 4 GiB, and nothing on either side is outside of what is served.
    """
    result = run_ours(attachable, msgspec.structs.replace(SMALL, ram_bytes=3 << 30))
    assert result.outcome == "complete"
    assert attachable.version in result.guest
    assert result.config.device == "pagetide"
    (burst,) = result.bursts
    assert burst.returned_bytes >= 0.98 * burst.eaten_bytes
    assert result.reported_bytes
    assert result.reported_bytes > 1 << 30
    assert result.verified_bytes == result.discarded_bytes == result.reported_bytes
    assert result.skipped_bytes is not None
    assert set(result.skipped_bytes.values()) == {0}
    assert result.host_cpu_s
    assert gone(processes_of_guests)
    assert folders_of_guests() == []
