"""Both halves of one virtqueue over an ordinary buffer that plays guest memory."""

import mmap
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.memory.region_map import Region, RegionMap
from pagetide.virtio.split_ring import device as ring_device
from pagetide.virtio.split_ring import driver as ring_driver
from pagetide.virtio.split_ring.device_ring import DeviceRing
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import DESC_BYTES, RING_IDX, place_ring

GPA = 0x10000
"""Where guest memory starts: not 0, so that a gpa taken for an address or an offset shows."""


class GuestMemory:
    """Anonymous memory at GPA, with its region table."""

    def __init__(self, size_bytes: int) -> None:
        self.bytes = mmap.mmap(-1, size_bytes)
        self.ram_address = np.frombuffer(self.bytes, np.uint8).ctypes.data - GPA
        self.regions = RegionMap([Region(GPA, size_bytes, -1, 0, self.ram_address + GPA)]).table

    def peek(self, form: str, address: int) -> tuple[int, ...]:
        """Read little-endian fields (as `struct` names them) at an address of this process."""
        return struct.unpack_from("<" + form, self.bytes, address - self.ram_address - GPA)

    def poke(self, form: str, address: int, *values: int) -> None:
        """Write little-endian fields at an address of this process."""
        struct.pack_into("<" + form, self.bytes, address - self.ram_address - GPA, *values)


class RingPair(NamedTuple):
    """A driver half and a device half over the same memory."""

    memory: GuestMemory
    driver: DriverRing
    device: DeviceRing


def make_pair(size: int, *, event_idx: bool, table_descs: int = 0, start: int = 0) -> RingPair:
    """A queue whose indices all stand at `start`, as after that many elements."""
    place = place_ring(size, GPA)
    tables_gpa = place.end_gpa + 15 & -16
    memory = GuestMemory(tables_gpa - GPA + size * table_descs * DESC_BYTES + 4096)
    driver = DriverRing(
        size,
        ram_address=memory.ram_address,
        place=place,
        event_idx=event_idx,
        table_descs=table_descs,
        tables_gpa=tables_gpa,
    )
    for index in (ring_driver.AVAIL_NEXT, ring_driver.AVAIL_PUBLISHED, ring_driver.USED_SEEN):
        driver.state[index] = start
    avail, used = (int(driver.state[i]) for i in (ring_driver.AVAIL_ADDRESS, ring_driver.USED_ADDRESS))
    memory.poke("H", avail + RING_IDX, start)
    memory.poke("H", used + RING_IDX, start)
    device = DeviceRing(
        size,
        desc_address=int(driver.state[ring_driver.DESC_ADDRESS]),
        avail_address=avail,
        used_address=used,
        event_idx=event_idx,
        indirect=table_descs > 0,
        base=start,
    )
    driver.arm_call()
    device.arm_kick()
    return RingPair(memory, driver, device)


def column(*values: int) -> npt.NDArray[np.int64]:
    """These numbers as the int64 array that kernels take."""
    return np.array(values, np.int64)


def used_address(pair: RingPair) -> int:
    """Address of the used ring."""
    return int(pair.device.state[ring_device.USED_ADDRESS])


def avail_address(pair: RingPair) -> int:
    """Address of the available ring."""
    return int(pair.device.state[ring_device.AVAIL_ADDRESS])


def desc_address(pair: RingPair) -> int:
    """Address of the descriptor table."""
    return int(pair.device.state[ring_device.DESC_ADDRESS])
