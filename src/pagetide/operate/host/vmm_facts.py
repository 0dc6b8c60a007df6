"""What the host's kernel tells of the process that runs a VM. All sizes are bytes; no names and no addresses."""

from typing import Literal

import msgspec

from pagetide.operate.sizes import Count, Size

Kind = Literal["memfd", "tmpfs", "hugetlbfs", "anonymous", "file"]
Vmm = Literal["QEMU", "User-Mode Linux", "Firecracker", "Cloud Hypervisor", "crosvm", "not known"]


class RamMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the process's memory that is the guest's RAM.

    Attributes:
        kind: what is mapped.
        is_shared: whether what is written reaches the file; a private one is copied on write.
        size_bytes: of the mapping.
        held_bytes: what the kernel holds for it, in RAM and in swap; of a private mapping whose file's pages are known,
            the copies.
        swapped_bytes: as much of that is in swap.
        huge_bytes: as much of that is in transparent huge pages.
        page_bytes: size of its pages; more than the machine's for hugetlbfs.
        is_locked: whether it is locked (mlock).
        file_bytes: what the file behind a private mapping holds, in RAM and in swap, beside its copies; None for
            others, and where that cannot be read.
        others: how many other processes map the same file.
    """

    kind: Kind
    is_shared: bool
    size_bytes: Size
    held_bytes: Size
    swapped_bytes: Size
    huge_bytes: Size
    page_bytes: Size
    is_locked: bool
    file_bytes: Size | None = None
    others: Count = 0


class BalloonOption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A balloon device as the command line has it.

    Attributes:
        is_ours: whether it may be behind a vhost-user socket: QEMU's generic device.
        offers_reporting: whether QEMU's own offers free page reporting; None for one behind a socket.
    """

    is_ours: bool
    offers_reporting: bool | None


class VmmFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A VM's process.

    Attributes:
        vmm: which program.
        pid: its process, where it was looked at.
        ram: the guest's memory.
        ram_is_guessed: whether that was taken for the guest's memory by its size alone.
        own_bytes: what the process has in RAM besides.
        own_swapped_bytes: and in swap.
        balloons: what its command line has of them; None where that was not to be read or is not known.
        passes_devices: whether it passes devices through (vfio), which pins all memory.
        told_by: what told of all this what is there: smaps, or the call PAGEMAP_SCAN.
    """

    vmm: Vmm
    pid: Count
    ram: tuple[RamMapping, ...]
    ram_is_guessed: bool
    own_bytes: Size
    own_swapped_bytes: Size
    balloons: tuple[BalloonOption, ...] | None
    passes_devices: bool
    told_by: Literal["smaps", "PAGEMAP_SCAN"] = "smaps"

    @property
    def ram_bytes(self) -> int:
        """How much memory the guest has."""
        return sum(part.size_bytes for part in self.ram)

    @property
    def ram_held_bytes(self) -> int:
        """What the host holds of it, in RAM and in swap."""
        return sum(part.held_bytes for part in self.ram)

    @property
    def ram_swapped_bytes(self) -> int:
        """As much of that is in swap."""
        return sum(part.swapped_bytes for part in self.ram)

    @property
    def ram_file_bytes(self) -> int:
        """What files hold beside the copies that a private mapping of them has."""
        return sum(part.file_bytes or 0 for part in self.ram)

    @property
    def ram_huge_bytes(self) -> int:
        """As much of it is in transparent huge pages of the host."""
        return sum(part.huge_bytes for part in self.ram)

    @property
    def keeps_all(self) -> bool:
        """Whether no discard frees anything: a device is passed through, or private memory is locked."""
        return self.passes_devices or any(part.is_locked and not part.is_shared for part in self.ram)

    @property
    def held_bytes(self) -> int:
        """What the host holds for the whole process, in RAM and in swap, and for files behind private mappings."""
        return self.ram_held_bytes + self.ram_file_bytes + self.own_bytes + self.own_swapped_bytes
