"""A guest's RAM with a reporting queue in its first pages, for tests that play the driver."""

from collections.abc import Sequence

import numpy as np

from pagetide.host.device.queues.place import QueuePlace
from pagetide.memory.guest_ram import Backing, GuestRam
from pagetide.memory.residency import resident_ranges
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Feature
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import DESC_BYTES, RingPlace, place_ring
from pagetide.virtio.vhost_user.payloads import MemoryRegion

PAGE = PAGE_SIZE_BYTES
GPA = 1 << 32
"""Where guest memory starts."""
USER = 0x7E00_0000_0000
"""Where the frontend says that it has it: neither a gpa nor an address of this process."""
SIZE = 64
RING_PAGES = 17
"""Pages at the start of RAM that hold the queue and its indirect tables."""

_TABLE_DESCS = SIZE


class GuestRing:
    """RAM, all of it resident, and the driver half of a queue of SIZE descriptors in it."""

    def __init__(self, pages: int, features: int, backing: Backing | GuestRam = "memfd") -> None:
        """Make the memory, if it is not there, and a fresh ring."""
        self.ram = backing if isinstance(backing, GuestRam) else GuestRam.create(pages * PAGE, backing)
        self.pages = pages
        self.place: RingPlace = place_ring(SIZE, GPA)
        self._tables_gpa = -(-self.place.end_gpa // 16) * 16
        assert self._tables_gpa + SIZE * _TABLE_DESCS * DESC_BYTES <= GPA + RING_PAGES * PAGE
        self._features = features
        self.ram.words[:] = np.arange(self.ram.words.size)
        self.reset_driver()

    def reset_driver(self) -> None:
        """Start with a fresh ring in the same place."""
        self.driver = DriverRing(
            SIZE,
            ram_address=self.ram.address - GPA,
            place=self.place,
            event_idx=bool(self._features & Feature.EVENT_IDX),
            table_descs=_TABLE_DESCS if self._features & Feature.INDIRECT_DESC else 0,
            tables_gpa=self._tables_gpa,
        )

    def refill(self) -> None:
        """Write to all pages but the ring's again."""
        start = RING_PAGES * PAGE // 8
        self.ram.words[start:] = np.arange(start, self.ram.words.size)

    def __enter__(self) -> "GuestRing":
        return self

    def __exit__(self, *_: object) -> None:
        self.ram.close()

    @property
    def region(self) -> MemoryRegion:
        """All RAM as one region."""
        return MemoryRegion(GPA, self.pages * PAGE, USER, 0)

    @property
    def queue_place(self) -> QueuePlace:
        """The queue by user addresses."""
        return QueuePlace(SIZE, *(gpa - GPA + USER for gpa in self.place[:3]))

    def add(self, blocks: Sequence[tuple[int, int]], *, writable: bool = True) -> None:
        """Add one element of (first page, pages) blocks; `driver.publish` shows it to the device."""
        gpas = np.array([GPA + page * PAGE for page, _ in blocks], np.int64)
        lengths = np.array([pages * PAGE for _, pages in blocks], np.int64)
        assert self.driver.add_element(gpas, lengths, writable=writable) is not None

    def resident_pages(self) -> set[int]:
        """Pages that the host holds."""
        runs = resident_ranges(self.ram.fd, 0, self.pages * PAGE)
        return {page for start, end in runs for page in range(start // PAGE, end // PAGE)}

    def intact(self, page: int) -> bool:
        """Whether a page still holds what was written to it at first."""
        words = PAGE // 8
        return bool(
            (self.ram.words[page * words : (page + 1) * words] == np.arange(page * words, (page + 1) * words)).all()
        )
