"""User-Mode Linux as what runs a guest: a Linux kernel that is a process, with vhost-user built in (`virtio_uml`)."""

import os
from collections.abc import Mapping
from pathlib import Path

from pagetide.machine.linux.boot_config import RAM_BYTES_MIN, BootConfig
from pagetide.machine.linux.packages import GuestParts
from pagetide.memory.guest_ram import GuestRamError
from pagetide.units import format_size
from pagetide.virtio.balloon import DEVICE_ID

_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - UML makes its memory file there, nameless


class UserModeLinux:
    """Runs a kernel as a process; its balloon is always behind a socket. See `Hypervisor`."""

    name = "User-Mode Linux"
    environment: Mapping[str, str] = {"TMPDIR": _MEMORY_FOLDER}
    memory_file = _MEMORY_FOLDER + "/"
    ram_bytes_min = RAM_BYTES_MIN
    is_balloon = False

    def __init__(self, parts: GuestParts) -> None:
        """Take the guest's files."""
        self.parts = parts

    def check_room(self, size_bytes: int) -> None:
        """The memory file must fit into /dev/shm.

        Raises:
            GuestRamError: it does not.
        """
        space = os.statvfs(_MEMORY_FOLDER)
        room_bytes = space.f_bavail * space.f_frsize
        if room_bytes < size_bytes:
            raise GuestRamError(
                f"{format_size(size_bytes)} of guest RAM do not fit into {_MEMORY_FOLDER}, where User-Mode Linux has "
                f"it: only {format_size(room_bytes)} are free; as root, mount -o remount,size={size_bytes >> 19}M "
                f"{_MEMORY_FOLDER} makes room"
            )

    def command(self, config: BootConfig, folder: Path, initrd: Path, balloon: Path | None) -> list[str]:
        """The kernel's own command line."""
        assert balloon is not None
        arguments = [
            str(self.parts.kernel),
            f"mem={config.ram_bytes >> 20}M",
            f"initrd={initrd}",
            f"virtio_uml.device={balloon}:{DEVICE_ID}",
            f"uml_dir={folder}",
            "con=null",
            "con0=fd:0,fd:1",
            "quiet",
            "panic=1",
        ]
        return [*arguments, *config.words]
