"""A guest's memory as a vhost-user frontend shared it: regions of files, mapped into this process.

The frontend is trusted with its own files only. A region must lie within its file when it is mapped; a frontend that
cuts the file short afterwards is found out at the next access beyond its end (`bus_error.py`).
"""

import os
from collections.abc import Sequence
from typing import Protocol

from pagetide import foreign_fds, linux
from pagetide.host.memory.mapping import LOOK_PAGES, GuestMemoryError, Mapping, map_region
from pagetide.host.memory.seam import SeamError, Seams
from pagetide.memory.region_map import Region, RegionMap
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from pagetide.virtio.vhost_user.rules import MEM_SLOTS_MAX

_PASSED_OVER_MAX = 64
_UNLIMITED = 1 << 62


SHARED_BYTES_MAX = 1 << 44
"""Most memory that the guests of one socket share in all: an eighth of the addresses that a process has.

A file of holes costs a front-end nothing, however large it is, and who shares such files must leave room for others.
"""


class SharedMemoryLimit:
    """How much more memory may be shared, by one guest or by several together.

    Attributes:
        left_bytes: so much.
        left_regions: in so many more regions, each of which takes a descriptor.
    """

    left_bytes: int
    left_regions: int

    def __init__(self, left_bytes: int = SHARED_BYTES_MAX, left_regions: int = _UNLIMITED) -> None:
        """Begin with this much."""
        self.left_bytes = left_bytes
        self.left_regions = left_regions


class DeviceMemory(Protocol):
    """What of a guest's memory a device needs; GuestMemory says what each does."""

    @property
    def region_map(self) -> RegionMap:
        """From guest-physical addresses to files and to addresses of this process."""

    def address_of(self, user_address: int, length_bytes: int) -> int:
        """Where in this process the memory is that the frontend has at this address."""

    def forget_inflated(self) -> None:
        """Every page is the guest's again."""


class GuestMemory:
    """All regions of one guest. It owns their descriptors and mappings.

    Attributes:
        region_map: from guest-physical addresses to files and to addresses of this process.
    """

    region_map: RegionMap

    def __init__(self, limit: SharedMemoryLimit | None = None) -> None:
        """Have none yet; the limit may be that of several guests."""
        self._limit = SharedMemoryLimit() if limit is None else limit
        self._mappings: list[Mapping] = []
        self._seams = Seams()
        self._look_at: tuple[int, int] | None = None  # which mapping, and from which page on
        self.region_map = RegionMap([])

    def add(self, shared: MemoryRegion, fd: int) -> None:
        """Map one more region. The descriptor is this object's from now on, in any case.

        Raises:
            GuestMemoryError: it is one too many, not within its file, not on page boundaries, overlaps another, is more
                than may be shared, or cannot be mapped. Nothing has changed then.
        """
        if len(self._mappings) >= MEM_SLOTS_MAX:
            foreign_fds.close(fd)
            raise GuestMemoryError(f"there is room for {MEM_SLOTS_MAX} memory regions, as GET_MAX_MEM_SLOTS said")
        if shared.size_bytes > self._limit.left_bytes:
            foreign_fds.close(fd)
            raise _too_large(shared, self._limit.left_bytes)
        if self._limit.left_regions < 1:
            foreign_fds.close(fd)
            raise _too_many()
        mapping = map_region(shared, fd)
        try:
            self.region_map = _region_map([*self._mappings, mapping])
        except GuestMemoryError:
            mapping.close()
            raise
        self._mappings.append(mapping)
        self._limit.left_bytes -= shared.size_bytes
        self._limit.left_regions -= 1
        self._look_at = None

    def replace(self, regions: Sequence[MemoryRegion], fds: Sequence[int]) -> None:
        """Have these regions and no others. One that was there before stays mapped, with what is known of its pages.

        Front-ends send their whole table again whenever a region comes or goes. Only what is there afterwards counts:
        old and new together would leave half of the limit to a guest. The descriptors are this object's from now on, in
        any case.

        Raises:
            GuestMemoryError: as for `add`, for one of them. Nothing has changed then.
        """
        assert len(regions) == len(fds), "a descriptor for every region"
        assert len(regions) <= MEM_SLOTS_MAX, "as many as a message has descriptors"
        old = list(self._mappings)
        table: list[Mapping] = []
        mapped: list[Mapping] = []
        waiting = list(fds)
        left_bytes = self._limit.left_bytes + sum(mapping.shared.size_bytes for mapping in old)
        left_regions = self._limit.left_regions + len(old) - len(regions)
        try:
            if left_regions < 0:
                raise _too_many()
            for region in regions:
                if region.size_bytes > left_bytes:
                    raise _too_large(region, left_bytes)
                left_bytes -= region.size_bytes
                same = next((m for m in old if m.shared == region and os.path.sameopenfile(m.fd, waiting[0])), None)
                if same is None:
                    mapped.append(map_region(region, waiting.pop(0)))
                else:
                    old.remove(same)
                    foreign_fds.close(waiting.pop(0))
                table.append(mapped[-1] if same is None else same)
            self.region_map = _region_map(table)
        except GuestMemoryError:
            for mapping in mapped:
                mapping.close()
            raise
        finally:
            for fd in waiting:
                foreign_fds.close(fd)
        self._mappings = table
        self._seams.close()
        self._limit.left_bytes, self._limit.left_regions = left_bytes, left_regions
        self._look_at = None
        for mapping in old:
            mapping.close()

    def remove(self, gpa: int, size_bytes: int, user_address: int) -> None:
        """Unmap the region that has these addresses and this size; its place in the file does not matter.

        Raises:
            GuestMemoryError: there is none.
        """
        for mapping in self._mappings:
            if mapping.shared[:3] == (gpa, size_bytes, user_address):
                self._mappings.remove(mapping)
                self._seams.close()
                self._look_at = None
                self.region_map = _region_map(self._mappings)
                self._unmap(mapping)
                return
        raise GuestMemoryError(f"there is no memory region of {size_bytes:#x} bytes at {gpa:#x} to remove")

    @property
    def regions(self) -> list[tuple[MemoryRegion, int]]:
        """Every region, with its descriptor, which stays this object's."""
        return [(mapping.shared, mapping.fd) for mapping in self._mappings]

    @property
    def mappings(self) -> list[Mapping]:
        """Every region with what is known of its pages, by its address in the guest."""
        return sorted(self._mappings, key=lambda mapping: mapping.shared.gpa)

    @property
    def is_ram(self) -> bool:
        """Whether all of it is in files of tmpfs or hugetlbfs, and nothing on a disk."""
        return all(linux.can_have_seals(mapping.fd) for mapping in self._mappings)

    @property
    def was_cut(self) -> bool:
        """Whether a part of a region was found to have no page, as `FileWindow`."""
        return self._seams.was_cut or any(mapping.window.was_cut for mapping in self._mappings)

    def take_refaulted_bytes(self) -> int:
        """Look at a piece of memory: how much of what was returned is resident again (mincore(2)).

        Each page counts once for each time it was returned. A piece takes some 0.3 ms, and 2 ms if little of it is
        resident; where nothing was returned is passed over. `looking` is False after the last piece, or a change.

        Raises:
            OSError: the kernel does not say.
        """
        index, start = self._look_at or (0, 0)
        for _ in range(_PASSED_OVER_MAX):
            if index == len(self._mappings):
                self._look_at = None
                return 0
            found = self._mappings[index].take_refaulted_pages(start)
            start += LOOK_PAGES
            if start >= self._mappings[index].pages:
                index, start = index + 1, 0
            self._look_at = None if index == len(self._mappings) else (index, start)
            if found >= 0:
                return found * PAGE_SIZE_BYTES
        return 0

    def forget_inflated(self) -> None:
        """Every page is the guest's again: its driver is another one, or was reset."""
        for mapping in self._mappings:
            if mapping.book_address:
                linux.madvise(mapping.book_address, mapping.book_bytes, linux.MADV_DONTNEED)

    @property
    def looking(self) -> bool:
        """Whether some pieces were looked at, and there are more."""
        return self._look_at is not None

    def address_of(self, user_address: int, length_bytes: int) -> int:
        """Where in this process the memory is that the frontend has at this address.

        It stays there until memory is replaced or removed.

        Raises:
            GuestMemoryError: neither one region nor two that adjoin hold all of it, or those cannot be mapped together.
        """
        for mapping in self._mappings:
            into_bytes = user_address - mapping.shared.user_address
            if 0 <= into_bytes <= mapping.shared.size_bytes - length_bytes:
                return mapping.window.address + into_bytes
        try:
            return self._seams.address_of(user_address, length_bytes, self.regions)
        except SeamError as error:
            raise GuestMemoryError(str(error)) from error

    def close(self) -> None:
        """Unmap everything and close the files."""
        self.region_map = RegionMap([])
        self._look_at = None
        self._seams.close()
        while self._mappings:
            self._unmap(self._mappings.pop())

    def _unmap(self, mapping: Mapping) -> None:
        mapping.close()
        self._limit.left_bytes += mapping.shared.size_bytes
        self._limit.left_regions += 1


def _too_large(shared: MemoryRegion, left_bytes: int) -> GuestMemoryError:
    return GuestMemoryError(
        f"the memory region at {shared.gpa:#x} is larger than the {left_bytes:#x} bytes that this "
        f"guest, with others at its socket, may still share of {SHARED_BYTES_MAX:#x}"
    )


def _too_many() -> GuestMemoryError:
    return GuestMemoryError(
        "the guests of this socket hold as many memory regions as one socket may, so that this process keeps file "
        "descriptors for the others (ulimit -n)"
    )


def _region_map(mappings: list[Mapping]) -> RegionMap:
    try:
        return RegionMap(
            [
                Region(
                    *(*m.shared[:2], m.fd, m.shared[3], m.window.address),
                    *(m.marks_address, m.piece_bytes, m.unit_bytes, m.book_address),
                )
                for m in mappings
            ]
        )
    except ValueError as error:
        raise GuestMemoryError(str(error)) from error
