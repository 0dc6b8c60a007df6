"""The inflate and deflate queues against the device half of the ring, joined in one process."""

import ctypes
from collections.abc import Iterator

import pytest

from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.driver.inflate import InflateDriver
from pagetide.guest.driver.reporting import DriverError
from pagetide.memory.region_map import Region, RegionMap
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import Feature, Queue
from pagetide.virtio.split_ring.device_ring import DeviceRing
from tests.guest.driver.some_ram import some_ram
from tests.guest.reporting.batches import batch_of

NR_PAGES = 64
ALL = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.STATS_VQ | Feature.DEFLATE_ON_OOM


class Device:
    """A device in the same process that reads page frame numbers."""

    def __init__(self, ram_address: int, features: Feature = ALL) -> None:
        self.features, self.ram_address = features, ram_address
        self.config = {0: 0, 4: 0}
        self.rings: dict[int, DeviceRing] = {}
        self.kicks: list[int] = []
        self.regions = RegionMap([Region(0, NR_PAGES * PAGE_SIZE_BYTES, -1, 0, ram_address)]).table

    def negotiate(self, wanted: int) -> int:
        return wanted & self.features

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        desc, avail, used = (self.ram_address + gpa for gpa in (desc_gpa, avail_gpa, used_gpa))
        self.rings[index] = DeviceRing(size, desc_address=desc, avail_address=avail, used_address=used,
                                       event_idx=bool(self.features & Feature.EVENT_IDX), indirect=False)  # fmt: skip

    def driver_ok(self) -> None:
        pass

    def kick(self, index: int) -> None:
        self.kicks.append(index)

    def read_config(self, offset: int) -> int:
        return self.config[offset]

    def write_config(self, offset: int, value: int) -> None:
        self.config[offset] = value

    def serve(self, index: int) -> list[int]:
        """Take one element and give it back; the page frame numbers in it."""
        ring = self.rings[index]
        element = ring.pop(self.regions)
        assert element is not None
        ((gpa, length_bytes, writable),) = element.buffers
        assert not writable
        pfns = list((ctypes.c_uint32 * (length_bytes // 4)).from_address(self.ram_address + gpa))
        ring.push(element.head, 0)
        ring.publish()
        ring.arm_kick()
        return pfns


@pytest.fixture
def ram_address() -> Iterator[int]:
    """Where 256 KiB of memory are."""
    with some_ram(NR_PAGES) as address:
        yield address


def driver_of(device: Device, *, deflates: bool = True) -> InflateDriver:
    """A driver over a zone without watermarks."""
    zone = Zone(NR_PAGES, watermarks=Watermarks(0, 0, 0))
    return InflateDriver(zone, device.ram_address, device, deflate_on_oom=deflates)


@pytest.mark.parametrize("features", [ALL, ALL & ~Feature.EVENT_IDX, ALL & ~Feature.STATS_VQ])
def test_pages_arrive_on_the_queue_that_they_are_for(ram_address: int, features: Feature) -> None:
    """Inflated ones on queue 0, deflated ones on queue 1, as page frame numbers in one device-readable buffer."""
    device = Device(ram_address, features)
    driver = driver_of(device)
    full = [*range(8, 40), *range(1 << 20, (1 << 20) + 224)]
    for queue, pfns in ((Queue.INFLATE, full), (Queue.DEFLATE, [9]), (Queue.INFLATE, [11, 10]), (Queue.DEFLATE, full)):
        driver.submit(batch_of(*((pfn, 0) for pfn in pfns)), queue)
        assert not driver.completed()
        assert not driver.arm()
        assert device.kicks.pop() == queue
        assert device.serve(int(queue)) == pfns
        assert driver.arm(), "what is already there must not be slept on"
        assert driver.completed()
    assert device.kicks == []


def test_the_configuration_is_read_and_written(ram_address: int) -> None:
    """What the host wants is at offset 0, what the guest has at offset 4 (virtio 1.2, 5.5.4)."""
    device = Device(ram_address)
    driver = driver_of(device)
    device.config[0] = 123
    assert driver.num_pages() == 123
    driver.set_actual(99)
    assert device.config == {0: 123, 4: 99}


def test_deflating_on_oom_is_negotiated_if_wanted(ram_address: int) -> None:
    """Not asked for it is not accepted; asked for and not offered it is an error that names the feature."""
    assert not driver_of(Device(ram_address), deflates=False).features & Feature.DEFLATE_ON_OOM
    assert driver_of(Device(ram_address)).features & Feature.DEFLATE_ON_OOM
    with pytest.raises(DriverError, match="VIRTIO_BALLOON_F_DEFLATE_ON_OOM"):
        driver_of(Device(ram_address, ALL & ~Feature.DEFLATE_ON_OOM))


def test_a_guest_without_a_page_for_its_queues_says_so(ram_address: int) -> None:
    """No page is an error, not a broken queue."""
    zone = Zone(1, watermarks=Watermarks(1, 1, 1))
    with pytest.raises(DriverError, match="no page"):
        InflateDriver(zone, ram_address, Device(ram_address), deflate_on_oom=True)
