"""The guest's virtio-balloon driver (virtio 1.2, 5.5): its reporting queue.

It speaks to any device through a transport: vhost-user (link.py) or another that has the same few calls.
One report is one element of up to `capacity` device-writable buffers, an indirect table where that was negotiated and
is not too large, otherwise a chain (5.5.6.7). The driver does not wait: whoever drives it sleeps on the call that
`arm` asks for.
"""

from typing import Protocol

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import KICKS
from pagetide.guest.reporting.design import Batch
from pagetide.units import ORDER_MAX, PAGE_SHIFT, PAGE_SIZE_BYTES, block_bytes
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import DESC_BYTES, place_ring

WANTED = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.STATS_VQ | Feature.REPORTING
"""The features that the driver accepts.

STATS_VQ only for the numbering: QEMU's device always has the statistics queue, and a driver that does not accept it
would take that for the reporting queue (hw/virtio/virtio-balloon.c, 7.2).
"""

_TABLES_BYTES_MAX = 1 << 20


class DriverError(Exception):
    """The device cannot be used, or broke a rule; the message says how."""


class BalloonTransport(Protocol):
    """How the driver reaches a device."""

    def negotiate(self, wanted: int) -> int:
        """Reset the device, and agree on features; those that both sides have."""

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Tell the device where a queue is, and start it."""

    def driver_ok(self) -> None:
        """Say that the driver is ready (virtio 1.2, 3.1.1)."""

    def kick(self, index: int) -> None:
        """Notify the device that a queue has elements."""

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration (5.5.4)."""


class BalloonDriver:
    """Reports blocks to a device, one batch at a time.

    Attributes:
        features: what was negotiated.
    """

    features: Feature

    def __init__(
        self,
        zone: Zone,
        ram_address: int,
        transport: BalloonTransport,
        capacity: int,
        ring_entries: int | None = None,
    ) -> None:
        """Negotiate, allocate the queue's memory from the zone, and start it.

        Args:
            zone: where the guest's memory comes from.
            ram_address: where guest-physical address 0 is mapped in this process.
            transport: the way to the device.
            capacity: blocks in a report at most.
            ring_entries: size of the queue, which then has no indirect tables: at least the capacity. None makes one
                that is large enough.

        Raises:
            DriverError: the device has no reporting, or the zone has no memory for the queue.
        """
        assert capacity >= 1
        self._transport, self._words = transport, zone.words
        self._outstanding = False
        self.features = Feature(transport.negotiate(WANTED))
        if not self.features & Feature.REPORTING:
            raise DriverError("the device does not offer free page reporting (VIRTIO_BALLOON_F_REPORTING)")
        self._index = queues(self.features).index(Queue.REPORTING)
        size = ring_entries or 1 << max(1, (capacity - 1).bit_length())
        assert capacity <= size
        table_descs = capacity if self.features & Feature.INDIRECT_DESC and ring_entries is None else 0
        if size * table_descs * DESC_BYTES > _TABLES_BYTES_MAX:
            table_descs = 0
        place = place_ring(size, 0)
        tables_offset_bytes = -(-place.end_gpa // DESC_BYTES) * DESC_BYTES
        base_gpa = self._allocate(zone, tables_offset_bytes + size * table_descs * DESC_BYTES)
        place = place_ring(size, base_gpa)
        self._ring = DriverRing(
            size,
            ram_address=ram_address,
            place=place,
            event_idx=bool(self.features & Feature.EVENT_IDX),
            table_descs=table_descs,
            tables_gpa=base_gpa + tables_offset_bytes,
        )
        transport.start_queue(self._index, size, place.desc_gpa, place.avail_gpa, place.used_gpa)
        transport.driver_ok()

    @staticmethod
    def _allocate(zone: Zone, size_bytes: int) -> int:
        """Memory for the queue, not at address 0: QEMU takes that for no queue at all (`virtio_queue_notify`, 7.2)."""
        order = max(0, -(-size_bytes // PAGE_SIZE_BYTES) - 1).bit_length()
        first = zone.allocate(order) if order <= ORDER_MAX else None
        pfn = first
        if first == 0:
            pfn = zone.allocate(order)
            zone.free(first, order)
        if not pfn:
            raise DriverError(f"the guest has no {block_bytes(order)} bytes in one piece for its reporting queue")
        return pfn << PAGE_SHIFT

    def submit(self, batch: Batch, queue: Queue = Queue.REPORTING) -> None:
        """Report these blocks; `completed` tells when the host has dealt with them."""
        assert queue is Queue.REPORTING, "there is no other queue"
        assert not self._outstanding, "one report at a time"
        head = self._ring.add_element(batch >> 4 << PAGE_SHIFT, PAGE_SIZE_BYTES << (batch & 0xF), writable=True)
        assert head is not None, "the queue has room for one report"
        self._outstanding = True
        if self._ring.publish():
            self._words[KICKS] += 1
            self._transport.kick(self._index)

    def completed(self) -> bool:
        """Whether the host has dealt with the report.

        Raises:
            RingError: the device broke a rule of the ring.
        """
        assert self._outstanding
        self._outstanding = not self._ring.take_used()
        return not self._outstanding

    def arm(self) -> bool:
        """Ask for a call when the report is dealt with; True if it may be already: look before you sleep."""
        return self._ring.arm_call()
