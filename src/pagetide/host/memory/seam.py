"""Where two regions of a guest adjoin in its front-end's addresses: a window in which they adjoin here, too.

Regions are mapped one by one, wherever the kernel has room. A ring is read and written as one stretch, and may lie
across two of them. So the surroundings of their border are mapped a second time, the end of one file beside the
beginning of the other.
"""

import os
from collections.abc import Sequence

from pagetide import linux
from pagetide.bus_error import GuardedRange
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion

REACH_BYTES = (512 << 10) + PAGE_SIZE_BYTES
"""What of each region is mapped: a descriptor table of 32 768 entries, wherever it begins (virtio 1.2, 2.7)."""


class SeamError(Exception):
    """What lies across a border cannot be had; the message says why."""


class Seam:
    """The window, shared and writable.

    Attributes:
        user_address: where it begins for the front-end.
        size_bytes: how long it is.
        address: where it begins in this process.
    """

    user_address: int
    size_bytes: int
    address: int

    def __init__(self, lower: tuple[MemoryRegion, int], upper: tuple[MemoryRegion, int]) -> None:
        """Map the border of two regions, each with its file, the second beginning where the first ends.

        Raises:
            SeamError: the files' pages are larger than where the border lies allows.
            OSError: the kernel refused.
        """
        (first, first_fd), (second, second_fd) = lower, upper
        border = first.user_address + first.size_bytes
        assert border == second.user_address
        sizes = [max(os.fstatvfs(fd).f_bsize, PAGE_SIZE_BYTES) for fd in (first_fd, second_fd)]
        end_offset_bytes = first.mmap_offset_bytes + first.size_bytes
        if end_offset_bytes % sizes[0] or second.mmap_offset_bytes % sizes[1]:
            raise SeamError(
                f"two regions adjoin at user address {border:#x} within a page of {max(sizes)} bytes of a file, and "
                "what lies across cannot be mapped"
            )
        before = min(-(-min(REACH_BYTES, first.size_bytes) // sizes[0]) * sizes[0], end_offset_bytes)
        after = -(-min(REACH_BYTES, second.size_bytes) // sizes[1]) * sizes[1]
        unit = max(sizes)
        self._bytes = before + after + 2 * unit
        self._start = linux.mmap(
            0, self._bytes, linux.PROT_NONE, linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE
        )
        middle = (self._start + before + unit - 1) // unit * unit
        protection = linux.PROT_READ | linux.PROT_WRITE
        flags = linux.MAP_SHARED | linux.MAP_NORESERVE | linux.MAP_FIXED
        try:
            linux.mmap(middle - before, before, protection, flags, first_fd, end_offset_bytes - before)
            linux.mmap(middle, after, protection, flags, second_fd, second.mmap_offset_bytes)
        except OSError:
            linux.munmap(self._start, self._bytes)
            raise
        reach = min(before, first.size_bytes), min(after, second.size_bytes)
        self.user_address, self.address = border - reach[0], middle - reach[0]
        self.size_bytes = sum(reach)
        self._guards = (
            GuardedRange(middle - before, before, sizes[0]),
            GuardedRange(middle, after, sizes[1]),
        )

    def holds(self, user_address: int, length_bytes: int) -> bool:
        """Whether all of this is in it."""
        return 0 <= user_address - self.user_address <= self.size_bytes - length_bytes

    @property
    def was_cut(self) -> bool:
        """Whether an access found no page, as for `FileWindow`."""
        return any(guard.was_cut for guard in self._guards)

    def close(self) -> None:
        """Unmap it."""
        for guard in self._guards:
            guard.close()
        linux.munmap(self._start, self._bytes)


class Seams:
    """The windows on the borders of one guest's regions, made when something first lies across one."""

    def __init__(self) -> None:
        """Have none yet."""
        self._made: list[Seam] = []

    def __len__(self) -> int:
        return len(self._made)

    @property
    def was_cut(self) -> bool:
        """Whether an access through one of them found no page."""
        return any(seam.was_cut for seam in self._made)

    def address_of(self, user_address: int, length_bytes: int, regions: Sequence[tuple[MemoryRegion, int]]) -> int:
        """Where in this process this stretch of the front-end's addresses is, up to the next `close`.

        Args:
            user_address: where it begins.
            length_bytes: how long it is; no region holds all of it.
            regions: all that there are, each with its file.

        Raises:
            SeamError: no two that adjoin hold it, or they cannot be mapped together.
        """
        for seam in self._made:
            if seam.holds(user_address, length_bytes):
                return seam.address + user_address - seam.user_address
        seam = _make(user_address, length_bytes, regions)
        self._made.append(seam)
        return seam.address + user_address - seam.user_address

    def close(self) -> None:
        """Unmap all: regions have come or gone."""
        while self._made:
            self._made.pop().close()


def _make(user_address: int, length_bytes: int, regions: Sequence[tuple[MemoryRegion, int]]) -> Seam:
    by_end = {region.user_address + region.size_bytes: (region, fd) for region, fd in regions}
    for upper in regions:
        border = upper[0].user_address
        if border in by_end and user_address < border < user_address + length_bytes:
            try:
                seam = Seam(by_end[border], upper)
            except OSError as error:
                raise SeamError(f"the border of two regions at {border:#x} cannot be mapped: {error}") from error
            if seam.holds(user_address, length_bytes):
                return seam
            seam.close()
    raise SeamError(f"no memory region holds {length_bytes} bytes at user address {user_address:#x}")
