"""The thread of the host's process in which it takes frames by itself, where the design is `shared`."""

import contextlib
import mmap
import threading
from collections.abc import Iterator

import numpy as np

from pagetide.guest.allocator.zone_layout import frame_table_base
from pagetide.host.device.taking import FrameTaker
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.machine.config import RunConfig
from pagetide.machine.live.beside import beside
from pagetide.machine.messages import HostSetup
from pagetide.memory.frame_table import FRAME_PAGES, FRAME_SHIFT, table_words
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion

DELAY_S = 2.0
"""From the end of a pass to the next one, if nothing else is asked for: as long as scanning designs take."""

_DELAY_S_MIN = 0.001


def delay_s(config: RunConfig) -> float:
    """From the end of a pass to the next one."""
    return max(DELAY_S if config.delay_s is None else config.delay_s, _DELAY_S_MIN)


def batch_frames(config: RunConfig) -> int:
    """How many frames may be TAKING at once: the capacity, and for `oom cap` no more than may be in flight."""
    if config.oom != "cap":
        return config.capacity
    return max(1, min(config.capacity, config.in_flight_bytes >> FRAME_SHIFT))


@contextlib.contextmanager
def taking_frames(setup: HostSetup, ledger: Ledger) -> Iterator[None]:
    """Take frames of the guest, in a thread of its own, for as long as the context lasts.

    Both descriptors of the setup are used up. Of the arena no more is mapped than the frame table.
    """
    config = setup.config
    nr_pages = config.ram_bytes // PAGE_SIZE_BYTES
    words = table_words(nr_pages)
    mapped = mmap.mmap(setup.arena_fd, words * 8, offset=frame_table_base(config.vcpus) * 8)
    memory = GuestMemory()
    memory.add(MemoryRegion(0, config.ram_bytes, 0, 0), setup.ram_fd)
    taker = FrameTaker(
        np.frombuffer(mapped, np.int64, words),
        nr_pages // FRAME_PAGES,
        memory.region_map,
        ledger,
        capacity=batch_frames(config),
        verify_share=config.verify_share,
    )

    def take(over: threading.Event) -> None:
        while not over.wait(delay_s(config)):
            while not over.is_set() and taker.take() is not None:
                pass

    with contextlib.closing(memory), beside("taking frames", take):
        yield
