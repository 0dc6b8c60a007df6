"""A device with one queue of any kind, and a driver for it that puts in buffers of bytes."""

import os
from collections.abc import Sequence
from typing import Self

import numpy as np

from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.device.queues.turn import Turn
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.virtio.balloon import Queue, queues
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, GuestRing

BUFFERS = RING_PAGES * PAGE
"""Offset in RAM of the buffers' pages."""
BUFFER_PAGES = 8


class QueueRig:
    """A guest, the device that serves it, and one of its queues, started.

    Attributes:
        guest: the memory and the driver's half of the queue.
        index: the queue's.
    """

    def __init__(self, kind: Queue, *, features: int = int(FEATURES), pages: int = 256) -> None:
        """Start the queue."""
        self.guest = GuestRing(pages, features)
        self.memory = GuestMemory()
        self.memory.add(self.guest.region, os.dup(self.guest.ram.fd))
        self.device = BalloonDevice(self.memory, Ledger())
        self.index = queues(features).index(kind)
        self._features = features
        self.device.start_queue(self.index, self.guest.queue_place, 0, features)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()
        self.guest.ram.close()

    def restart(self) -> None:
        """Stop the queue and start it where it stood."""
        base = self.device.queues.stop(self.index)
        assert base is not None
        self.device.start_queue(self.index, self.guest.queue_place, base, self._features)

    def put(self, data: bytes, offset: int = 0) -> None:
        """Add an element of one device-readable buffer with these bytes, and publish it."""
        assert offset + len(data) <= BUFFER_PAGES * PAGE
        ram = self.guest.ram.words.view(np.uint8)
        ram[BUFFERS + offset : BUFFERS + offset + len(data)] = np.frombuffer(data, np.uint8)
        self.add([(GPA + BUFFERS + offset, len(data))], writable=False)

    def put_pfns(self, pages: Sequence[int]) -> None:
        """Put an element that names these pages of RAM; beyond its ends, too."""
        self.put(b"".join((GPA // PAGE + page & 0xFFFF_FFFF).to_bytes(4, "little") for page in pages))

    def add(self, buffers: Sequence[tuple[int, int]], *, writable: bool) -> None:
        """Add an element of (gpa, bytes) buffers, and publish it."""
        gpas, lengths = (np.array(column, np.int64) for column in zip(*buffers, strict=True))
        assert self.guest.driver.add_element(gpas, lengths, writable=writable) is not None
        self.guest.driver.publish()

    def process(self, budget: int = 8) -> Turn:
        """Have the device serve the queue."""
        return self.device.process(self.index, budget)

    def used(self) -> int:
        """How many elements have come back since this was asked."""
        return len(self.guest.driver.take_used())

    def word(self, name: str) -> int:
        """A word of the ledger."""
        return self.device.ledger.snapshot()[name]
