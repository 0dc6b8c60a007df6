"""The balloon driver against the device half of the ring, joined in one process."""

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import KICKS
from pagetide.guest.driver.reporting import BalloonDriver, DriverError
from pagetide.memory.region_map import Region, RegionMap
from pagetide.units import PAGE_SIZE_BYTES, block_bytes
from pagetide.virtio.balloon import Feature
from pagetide.virtio.split_ring.device_ring import DeviceRing
from tests.guest.driver.some_ram import some_ram
from tests.guest.reporting.batches import batch_of

NR_PAGES = 8192
ALL = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.REPORTING


class Device:
    """A device in the same process: it offers features, and has the ring's other half."""

    def __init__(self, ram_address: int, features: Feature) -> None:
        self.features, self.ram_address = features, ram_address
        self.kicks: list[int] = []
        self.ready = False
        self.regions = RegionMap([Region(0, NR_PAGES * PAGE_SIZE_BYTES, -1, 0, ram_address)]).table

    def negotiate(self, wanted: int) -> int:
        return wanted & self.features

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        self.index, self.size, self.desc_address = index, size, self.ram_address + desc_gpa
        self.ring = DeviceRing(
            size,
            desc_address=self.ram_address + desc_gpa,
            avail_address=self.ram_address + avail_gpa,
            used_address=self.ram_address + used_gpa,
            event_idx=bool(self.features & Feature.EVENT_IDX),
            indirect=bool(self.features & Feature.INDIRECT_DESC),
        )

    def driver_ok(self) -> None:
        self.ready = True

    def kick(self, index: int) -> None:
        self.kicks.append(index)

    def write_config(self, offset: int, value: int) -> None:
        pass


@pytest.fixture
def ram_address() -> Iterator[int]:
    """Where 32 MiB of memory are."""
    with some_ram(NR_PAGES) as address:
        yield address


def zone_of(nr_pages: int = NR_PAGES) -> Zone:
    """A zone without watermarks."""
    return Zone(nr_pages, watermarks=Watermarks(0, 0, 0))


@pytest.mark.parametrize("features", [ALL, ALL & ~Feature.INDIRECT_DESC, ALL & ~Feature.EVENT_IDX])
@pytest.mark.parametrize("capacity", [1, 3, 32, 512])
def test_a_report_arrives_as_one_element(ram_address: int, features: Feature, capacity: int) -> None:
    """Every block of a batch is one writable buffer, in order, chained or indirect; and the report completes once."""
    device = Device(ram_address, features)
    zone = zone_of()
    driver = BalloonDriver(zone, ram_address, device, capacity)
    blocks = [(1024 + index, index % 2) for index in range(0, 2 * capacity, 2)]
    for _ in range(3):
        driver.submit(batch_of(*blocks))
        assert not driver.completed()
        assert not driver.arm()
        element = device.ring.pop(device.regions)
        assert element is not None
        assert element.buffers == [(pfn * PAGE_SIZE_BYTES, block_bytes(order), True) for pfn, order in blocks]
        device.ring.push(element.head, 0)
        assert device.ring.publish(), "an armed driver is called"
        assert driver.arm(), "what is already there must not be slept on"
        assert driver.completed()
        device.ring.arm_kick()
    assert device.kicks == [device.index] * 3
    assert zone.words[KICKS] == 3
    assert device.ready


def test_the_reporting_queue_is_numbered_densely(ram_address: int) -> None:
    """Queue 2 without statistics, 3 with them; hinting, which the driver does not want, does not count."""
    for offered, index in ((ALL, 2), (ALL | Feature.STATS_VQ, 3), (ALL | Feature.FREE_PAGE_HINT, 2)):
        device = Device(ram_address, offered)
        BalloonDriver(zone_of(), ram_address, device, 32)
        assert device.index == index


def test_the_queue_lies_in_memory_that_nobody_else_gets(ram_address: int) -> None:
    """The ring's pages are allocated from the zone, so they are never reported."""
    zone = zone_of()
    BalloonDriver(zone, ram_address, Device(ram_address, ALL), 32)
    zone.check()
    assert [block.order for block in zone.blocks() if block.kind == 0x20] == [3]


def test_a_device_without_reporting_is_refused(ram_address: int) -> None:
    """The error names the feature that is missing."""
    with pytest.raises(DriverError, match="VIRTIO_BALLOON_F_REPORTING"):
        BalloonDriver(zone_of(), ram_address, Device(ram_address, Feature.VERSION_1), 32)


def test_a_guest_too_full_for_its_queue_says_so(ram_address: int) -> None:
    """No block of the needed size is an error, not a broken queue."""
    with pytest.raises(DriverError, match="in one piece"):
        BalloonDriver(zone_of(4), ram_address, Device(ram_address, ALL), 32)


def test_a_ring_of_a_given_size_has_no_indirect_tables(ram_address: int) -> None:
    """Though the device offers them: a report of as many blocks as there are entries fills the ring as a chain."""
    device = Device(ram_address, ALL)
    driver = BalloonDriver(zone_of(), ram_address, device, 8, ring_entries=8)
    assert device.size == 8
    blocks = [(1024 + 512 * index, 9) for index in range(8)]
    for _ in range(3):
        driver.submit(batch_of(*blocks))
        descs = np.ctypeslib.as_array((ctypes.c_int64 * 16).from_address(device.desc_address)).reshape(8, 2)
        assert sorted(descs[:, 0].tolist()) == [pfn * PAGE_SIZE_BYTES for pfn, _ in blocks]
        element = device.ring.pop(device.regions)
        assert element is not None
        assert element.buffers == [(pfn * PAGE_SIZE_BYTES, block_bytes(order), True) for pfn, order in blocks]
        device.ring.push(element.head, 0)
        device.ring.publish()
        assert driver.completed()
