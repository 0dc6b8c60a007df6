"""A guest's memory in a file of ours, which is touched and discarded as a guest and its reports would."""

import os

import numpy as np
import numpy.typing as npt

from pagetide import linux
from pagetide.host.memory.discard import punch_ranges
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.ranges import RANGE_COLUMNS, RANGE_END, RANGE_REGION, RANGE_START
from pagetide.virtio.vhost_user.payloads import MemoryRegion

PAGE = 4096


def ranges_of(*rows: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Ranges as kernels take them: of each the first address, the end and the region."""
    ranges = np.zeros((len(rows), RANGE_COLUMNS), np.int64)
    for index, row in enumerate(rows):
        ranges[index, [RANGE_START, RANGE_END, RANGE_REGION]] = row
    return ranges


class FileGuest:
    """Nothing of it is touched at first. Close it.

    Attributes:
        fd: the file.
        memory: the guest's memory.
        ledger: its account.
    """

    def __init__(self, size_bytes: int, *regions: MemoryRegion) -> None:
        """Make a file of this size, of which these regions are the guest's memory."""
        self.fd = linux.memfd_create("test-memory")
        linux.ftruncate(self.fd, size_bytes)
        self.memory, self.ledger = GuestMemory(), Ledger()
        for region in regions:
            self.memory.add(region, os.dup(self.fd))

    def touch(self, first: int, pages: int) -> None:
        """Write to pages of the file."""
        os.pwrite(self.fd, b"\xa5" * (pages * PAGE), first * PAGE)

    def punch(self, gpa: int, size_bytes: int, *, region: int, verify: bool = True) -> int:
        """Discard a range of a region as a report would; regions are counted by address. The errno if that failed."""
        ranges = ranges_of((gpa, gpa + size_bytes, region))
        return punch_ranges(self.memory.region_map.table, ranges, 1, int(verify), self.ledger.words)

    def close(self) -> None:
        """Unmap it."""
        self.memory.close()
        os.close(self.fd)
