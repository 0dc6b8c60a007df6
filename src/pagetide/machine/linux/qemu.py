"""QEMU as what runs a guest: any machine will do, since it translates the guest's code (TCG) and needs no root.

The balloon is QEMU's own, or ours behind QEMU's generic vhost-user device, which is told what a balloon looks like
from outside: its virtio id, how many queues there can be, and the size of its configuration space.
"""

from collections.abc import Mapping
from pathlib import Path

from pagetide.machine.linux.architectures import AMD64, Architecture
from pagetide.machine.linux.attendant import sent_file
from pagetide.machine.linux.boot_config import BootConfig
from pagetide.machine.linux.packages import GENERIC_DEVICE, GuestParts, QemuProgram
from pagetide.memory.available import available_bytes
from pagetide.memory.guest_ram import GuestRamError
from pagetide.units import format_size
from pagetide.virtio.balloon import DEVICE_ID, Config, Queue

_QUEUE_SIZE = 128
"""As QEMU's own balloon has it (hw/virtio/virtio-balloon.c)."""


class Qemu:
    """Runs a kernel in a machine of its architecture. See `Hypervisor`."""

    environment: Mapping[str, str] = {}
    memory_file = "/memfd:memory-backend-memfd"

    def __init__(
        self, parts: GuestParts, program: QemuProgram, *, is_balloon: bool, architecture: Architecture = AMD64
    ) -> None:
        """Take the guest's files, the program and what it is to be; `is_balloon` gives the guest QEMU's own balloon."""
        self.parts, self._program, self.is_balloon = parts, program, is_balloon
        self._architecture = architecture
        kind = "" if architecture is AMD64 else f" {architecture.name}"
        self.name = f"QEMU {program.version}{kind}" + (", its own balloon" if is_balloon else "")
        # With 64 MiB Linux 6.1 ends before it has a console; others were not asked for so little.
        self.ram_bytes_min = (128 if architecture is AMD64 else 256) << 20

    def check_room(self, size_bytes: int) -> None:
        """The memory file must fit into the machine's memory.

        Raises:
            GuestRamError: it does not.
        """
        if size_bytes > available_bytes():
            raise GuestRamError(
                f"{format_size(size_bytes)} of guest RAM do not fit: only {format_size(available_bytes())} of memory "
                "is available"
            )

    def command(self, config: BootConfig, folder: Path, initrd: Path, balloon: Path | None) -> list[str]:
        """QEMU's command line."""
        assert (balloon is None) == self.is_balloon
        architecture = self._architecture
        append = " ".join([f"console={architecture.console}", "quiet", "panic=-1", *config.words])
        return [
            str(self._program.path), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-accel", "tcg", "-cpu", architecture.cpu, "-machine", f"{architecture.machine},memory-backend=ram",
            "-m", f"{config.ram_bytes >> 20}M",
            "-object", f"memory-backend-memfd,id=ram,size={config.ram_bytes},share=on",
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-kernel", str(self.parts.kernel), "-initrd", str(initrd), "-append", append,
            *_balloon_arguments(balloon, architecture),
            *(_second_port(folder) if config.sends else []),
        ]  # fmt: skip


def _second_port(folder: Path) -> list[str]:
    return ["-chardev", f"file,id=sent,path={sent_file(folder)}", "-serial", "chardev:sent"]


def _balloon_arguments(balloon: Path | None, architecture: Architecture) -> list[str]:
    if balloon is None:
        return ["-device", f"{architecture.balloon},free-page-reporting=on"]
    looks = f"virtio-id={DEVICE_ID},num_vqs={len(Queue)},vq_size={_QUEUE_SIZE},config_size={len(Config().encode())}"
    socket = str(balloon).replace(",", ",,")  # QEMU's way to write a comma
    return ["-chardev", f"socket,id=balloon,path={socket}", "-device", f"{GENERIC_DEVICE},chardev=balloon,{looks}"]
