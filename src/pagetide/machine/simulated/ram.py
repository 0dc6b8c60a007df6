"""The memory of a simulated guest: addresses that are real, and pages of which only the metadata is kept."""

from pagetide import linux
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.host.memory.pieces import piece_bytes
from pagetide.memory.metadata import MetadataFile
from pagetide.memory.region_map import REGION_FD, Region, RegionMap
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES


class SimulatedRam:
    """Guest memory of which only the rings are real: one region at 0, whose discarding is metadata.

    Attributes:
        file: what is resident.
        address: where guest-physical address 0 is mapped; only what the rings touch takes memory.
        region_map: for the device.
    """

    def __init__(self, size_bytes: int, *, huge: bool) -> None:
        """Map it; nothing is resident.

        Raises:
            OSError: the kernel refused so large a mapping.
        """
        self.file = MetadataFile(size_bytes, huge=huge)
        self._size_bytes = size_bytes
        self.address = linux.mmap(
            0,
            size_bytes,
            linux.PROT_READ | linux.PROT_WRITE,
            linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE,
        )
        piece = piece_bytes(HUGE_PAGE_BYTES if huge else PAGE_SIZE_BYTES)
        self.region_map = RegionMap([Region(0, size_bytes, 0, 0, self.address, piece_bytes=piece)])
        self.region_map.table[0, REGION_FD] = self.file.fd

    def close(self) -> None:
        """Unmap it."""
        linux.munmap(self.address, self._size_bytes)

    def forget_inflated(self) -> None:
        """Nothing is kept of what is inflated: every page can be given back alone."""

    def address_of(self, user_address: int, length_bytes: int) -> int:
        """Where something is; user addresses are guest-physical ones.

        Raises:
            GuestMemoryError: it is not in this memory.
        """
        if not 0 <= user_address <= self._size_bytes - length_bytes:
            raise GuestMemoryError(f"no memory region holds {length_bytes} bytes at user address {user_address:#x}")
        return self.address + user_address
