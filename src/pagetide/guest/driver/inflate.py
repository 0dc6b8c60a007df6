"""The guest's virtio-balloon driver for ballooning: its inflate and deflate queues and its configuration.

An element of either queue is one device-readable buffer of page frame numbers of 4 KiB pages, le32, 256 at most
(virtio 1.2, 5.5.6). Both queues lie in one page, and so does the buffer, since one element is out at a time.

What the host wants is read from the configuration whenever the worker's timer asks, and not upon a notification of a
changed one: over vhost-user that comes on a second channel (BACKEND_REQ), a request that this connection's one thread
would have to wait for beside its replies, and a target that a policy moves every so often is not needed sooner than
the guest would act on it.
"""

import ctypes
from typing import Protocol

import numpy as np

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import KICKS
from pagetide.guest.driver.reporting import BalloonTransport, DriverError
from pagetide.guest.reporting.design import Batch
from pagetide.guest.reporting.designs.balloon import PFNS_A_BATCH
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_NUM_PAGES, Feature, Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import place_ring

WANTED = Feature.VERSION_1 | Feature.EVENT_IDX | Feature.STATS_VQ
"""The features that the driver accepts; STATS_VQ for the numbering, as in reporting.py."""

_QUEUE_SIZE = 8
_QUEUE_BYTES = 1024
_PFN_BYTES = 4


class ConfigTransport(BalloonTransport, Protocol):
    """A way to a device whose configuration can be read, too."""

    def read_config(self, offset: int) -> int:
        """Read 32 bits of the device's configuration (5.5.4)."""


class InflateDriver:
    """Tells a device of inflated and deflated pages, one batch at a time.

    Attributes:
        features: what was negotiated.
    """

    features: Feature

    def __init__(self, zone: Zone, ram_address: int, transport: ConfigTransport, *, deflate_on_oom: bool) -> None:
        """Negotiate, allocate the queues' memory from the zone, and start them.

        Args:
            zone: where the guest's memory comes from.
            ram_address: where guest-physical address 0 is mapped in this process.
            transport: the way to the device.
            deflate_on_oom: whether the guest is to use pages of the balloon when it has no others.

        Raises:
            DriverError: the device does not let it deflate on OOM, or the zone has no memory for the queues.
        """
        self._transport, self._words = transport, zone.words
        self._out: DriverRing | None = None
        self.features = Feature(transport.negotiate(WANTED | Feature.DEFLATE_ON_OOM if deflate_on_oom else WANTED))
        if deflate_on_oom and not self.features & Feature.DEFLATE_ON_OOM:
            raise DriverError("the device does not offer to deflate on OOM (VIRTIO_BALLOON_F_DEFLATE_ON_OOM)")
        pfn = zone.allocate(0)
        if pfn is None:
            raise DriverError("the guest has no page for its inflate and deflate queues")
        base_gpa = pfn << PAGE_SHIFT
        self._gpas = np.array([base_gpa + 2 * _QUEUE_BYTES])
        assert 2 * _QUEUE_BYTES + PFNS_A_BATCH * _PFN_BYTES <= PAGE_SIZE_BYTES
        buffer = (ctypes.c_uint32 * PFNS_A_BATCH).from_address(ram_address + base_gpa + 2 * _QUEUE_BYTES)
        self._pfns = np.ctypeslib.as_array(buffer)
        self._rings: dict[Queue, tuple[int, DriverRing]] = {}
        for number, kind in enumerate((Queue.INFLATE, Queue.DEFLATE)):
            place = place_ring(_QUEUE_SIZE, base_gpa + number * _QUEUE_BYTES)
            assert place.end_gpa <= base_gpa + (number + 1) * _QUEUE_BYTES
            ring = DriverRing(
                _QUEUE_SIZE,
                ram_address=ram_address,
                place=place,
                event_idx=bool(self.features & Feature.EVENT_IDX),
            )
            index = queues(self.features).index(kind)
            self._rings[kind] = index, ring
            transport.start_queue(index, _QUEUE_SIZE, place.desc_gpa, place.avail_gpa, place.used_gpa)
        transport.driver_ok()

    def num_pages(self) -> int:
        """How many pages the host wants in the balloon."""
        return self._transport.read_config(CONFIG_NUM_PAGES)

    def set_actual(self, nr_pages: int) -> None:
        """Say how many are in it."""
        self._transport.write_config(CONFIG_ACTUAL, nr_pages)

    def submit(self, batch: Batch, queue: Queue) -> None:
        """Tell of these pages on the inflate or the deflate queue; `completed` says when the host has dealt with them.

        Args:
            batch: blocks of order 0, at most PFNS_A_BATCH.
            queue: which of the two.
        """
        assert self._out is None, "one batch at a time"
        assert np.bitwise_or.reduce(batch) & 0xF == 0, "a balloon has single pages"
        index, ring = self._rings[queue]
        self._pfns[: len(batch)] = batch >> 4
        head = ring.add_element(self._gpas, np.array([len(batch) * _PFN_BYTES]), writable=False)
        assert head is not None, "the queue has room for one element"
        self._out = ring
        if ring.publish():
            self._words[KICKS] += 1
            self._transport.kick(index)

    def completed(self) -> bool:
        """Whether the host has dealt with the batch.

        Raises:
            RingError: the device broke a rule of the ring.
        """
        assert self._out is not None
        if not self._out.take_used():
            return False
        self._out = None
        return True

    def arm(self) -> bool:
        """Ask for a call when the batch is dealt with; True if it may be already: look before you sleep."""
        assert self._out is not None
        return self._out.arm_call()
