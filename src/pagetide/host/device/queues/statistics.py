"""The statistics queue: the guest's own figures of its memory (virtio 1.2, 5.5.6.3).

The driver puts in one buffer as soon as the queue is there, and the device keeps it. Giving it back is how the device
asks for new figures: the driver fills the buffer again and makes it available.
"""

import ctypes

import numpy as np
import numpy.typing as npt

from pagetide.host.device.queues.turn import NOTHING, Turn
from pagetide.host.memory.ledger import STATISTICS
from pagetide.memory.region_map import REGION_ADDRESS, REGION_BYTES, REGION_GPA, find_cover
from pagetide.virtio.balloon import STAT, Stat
from pagetide.virtio.split_ring.device_ring import DeviceRing, Element
from pagetide.virtio.split_ring.ring import INDEX_MASK

STATISTICS_BYTES_MAX = 64 * STAT.size
"""Most that is read of a buffer; Linux 6.12 fills 16 entries."""

_PLACE = (REGION_GPA, REGION_BYTES, REGION_ADDRESS)

_Words = npt.NDArray[np.int64]


def decode_statistics(data: bytes) -> dict[str, int]:
    """Statistics by the lower-case names of their tags; tags that nobody knows, and a torn last entry, are left out."""
    found = {}
    for tag, value in STAT.iter_unpack(data[: len(data) // STAT.size * STAT.size]):
        if tag in Stat._value2member_map_:
            found[Stat(tag).name.lower()] = value
    return found


def read_bytes(regions: _Words, element: Element, bytes_max: int) -> bytes:
    """Copy the device-readable part of an element, up to a limit; parts outside the guest's memory are left out."""
    data = b""
    for gpa, length_bytes, writable in element.buffers:
        row = -1 if writable else int(find_cover(regions, gpa, length_bytes))
        end = gpa + min(length_bytes, bytes_max - len(data))
        start = gpa
        while row >= 0 and start < end:  # from region to region
            first, size_bytes, address = (int(regions[row, column]) for column in _PLACE)
            part_bytes = min(end, first + size_bytes) - start
            data += ctypes.string_at(address + start - first, part_bytes)
            start, row = start + part_bytes, row + 1
    assert len(data) <= bytes_max
    return data


class StatisticsQueue:
    """A started statistics queue.

    Attributes:
        ring: its device half.
        latest: the figures told last, by name.
    """

    ring: DeviceRing
    latest: dict[str, int]

    def __init__(self, ring: DeviceRing, ledger: _Words) -> None:
        """Serve a ring, and count in this ledger's words."""
        self.ring = ring
        self.latest = {}
        self._ledger = ledger
        self._held: int | None = None

    @property
    def next_avail(self) -> int:
        """The available ring entry at which another device would go on: a buffer that is held is still to be taken."""
        return self.ring.next_avail - (self._held is not None) & INDEX_MASK

    def process(self, regions: _Words, budget: int, skip: int) -> Turn:
        """Take what the driver told, and keep the last buffer. Those that nobody asked for are in vain.

        Raises:
            RingError: the driver broke a rule of the ring.
        """
        assert skip == 0, "statistics are never skipped"
        more, taken, expected = True, 0, self._held is None
        try:
            for _ in range(budget):
                element = self.ring.pop(regions)
                if element is None:
                    if not self.ring.arm_kick():
                        more = False
                        break
                    continue
                if self._held is not None:  # two buffers, which no driver has reason to put in: keep the newer
                    self.ring.push(self._held, 0)
                self._held = element.head
                self.latest = decode_statistics(read_bytes(regions, element, STATISTICS_BYTES_MAX))
                self._ledger[STATISTICS] += 1
                taken += 1
        finally:
            call = self.ring.publish()  # before an error too, what was dealt with is given back
        in_vain = 1.0 if taken == 0 else (taken - expected) / taken
        return Turn(call, more, in_vain=in_vain, payable=taken == 0)

    def request(self) -> Turn:
        """Ask the driver for new figures, unless it has yet to answer an earlier request."""
        if self._held is None:
            return NOTHING
        self.ring.push(self._held, 0)
        self._held = None
        return Turn(self.ring.publish(), more=False)
