"""What a real guest tells of itself on its console, and what follows from it."""

from typing import NamedTuple, Self

from pagetide.machine.guest_view import GuestMemoryNow, GuestTotals
from pagetide.units import PAGE_SIZE_BYTES


class KernelTold(NamedTuple):
    """What a guest's init says once it is ready.

    Attributes:
        order: the smallest block that the kernel reports, 2^order of its own pages; -1 if nothing reports.
        page_bytes: the size of its pages.
        orders: how many orders its allocator has, from 0.
    """

    order: int
    page_bytes: int
    orders: int

    @classmethod
    def read(cls, rest: str) -> Self:
        """From the words of the marker `@ready`."""
        _, order, page_kib, orders = rest.split()
        return cls(int(order), int(page_kib) << 10, int(orders))

    @property
    def block_bytes(self) -> int:
        """The smallest block that is reported."""
        return self.page_bytes << self.order

    @property
    def small_page_order(self) -> int:
        """The order, in pages of PAGE_SIZE_BYTES, as all settings and results have it."""
        return self.order + (self.page_bytes // PAGE_SIZE_BYTES).bit_length() - 1


class LinuxView:
    """What a Linux guest tells of itself.

    Memory that is neither free nor on a list for reclaim is the kernel's own, as good as constant in size, or is
    isolated for a report, or in the balloon. So the fewest there ever were are the kernel's own, and all that comes on
    top is not used.
    """

    def __init__(self, ram_bytes: int) -> None:
        """Take how much memory the guest has."""
        self._ram_bytes = self._used_bytes = self._kernel_bytes = ram_bytes
        self.free_bytes = 0

    def told(self, free_kib: int, listed_kib: int) -> None:
        """Init told how much is free, and how much on lists for reclaim."""
        self.free_bytes, listed_bytes = free_kib << 10, listed_kib << 10
        self._kernel_bytes = min(self._kernel_bytes, self._ram_bytes - self.free_bytes - listed_bytes)
        self._used_bytes = self._kernel_bytes + listed_bytes

    def memory(self) -> GuestMemoryNow:
        """As last told."""
        return GuestMemoryNow(self._used_bytes, self.free_bytes, None)

    def totals(self) -> GuestTotals:
        """Nothing of that is told."""
        return GuestTotals()
