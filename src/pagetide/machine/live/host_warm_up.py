"""Compiles or loads the host's kernels before the clock starts, by serving empty queues of a tiny guest."""

import numpy as np

from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.device.lag import Lag
from pagetide.host.device.queues.place import QueuePlace
from pagetide.host.device.taking import FrameTaker
from pagetide.host.guest.fd_events import FdEvents
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.linux import ftruncate, memfd_create
from pagetide.memory.frame_table import FRAME_PAGES, table_words
from pagetide.memory.region_map import RegionMap
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import queues
from pagetide.virtio.split_ring.inflight import InflightRegion, end_tracking
from pagetide.virtio.vhost_user.payloads import MemoryRegion


def warm_up_host() -> None:
    """Call every kernel that a server will call."""
    memory = GuestMemory()
    fd = memfd_create("pagetide-warm-up")
    ftruncate(fd, PAGE_SIZE_BYTES)
    memory.add(MemoryRegion(0, PAGE_SIZE_BYTES, 0, 0), fd)
    for mapping in memory.mappings:
        mapping.block_states(0, 1)
    Lag().note(0, 1)
    events = FdEvents()
    events.look(0)
    events.close()
    device = BalloonDevice(memory, Ledger())
    for index in range(len(queues(FEATURES))):
        device.start_queue(index, QueuePlace(2, 0, 1024, 2048), 0, FEATURES)
        device.process(index, 1)
        device.queues.stop(index)
    device.start_queue(0, QueuePlace(2, 0, 1024, 2048), 0, FEATURES)
    device.queues.finish()
    device.queues.stop(0)
    room = np.zeros(PAGE_SIZE_BYTES, np.uint8)
    end_tracking(InflightRegion(room.ctypes.data, 1))  # of a queue that a guest's own stop ends
    memory.close()


def warm_up_taking() -> None:
    """Call every kernel that takes frames, on a table in which none is free."""
    table = np.zeros(table_words(FRAME_PAGES), np.int64)
    assert FrameTaker(table, 1, RegionMap([]), Ledger(), capacity=1).take() is None
