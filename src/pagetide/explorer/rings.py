"""The queues of an explored machine: the real halves of each, joined in its guest memory, and the real drivers on top.

Drivers are put together here instead of by their constructors, which negotiate and allocate.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.explorer.ground import PFNS_BYTES, QUEUE_BYTES, Ram
from pagetide.guest.allocator.zone_layout import KICKS
from pagetide.host.memory.ledger import ACCOUNT_WORDS
from pagetide.virtio.split_ring.ring import place_ring

_SIZE_MIN = 2
MODULES = (
    "guest.driver.reporting",
    "virtio.split_ring.driver",
    "virtio.split_ring.device_ring",
    "host.device.queues.element",
    "host.device.queues.joined",
    "host.device.queues.turn",
    "host.device.queues.block_queue",
)
"""What is needed of the explored world, and for a balloon guest.driver.inflate."""


class Joined(NamedTuple):
    """A queue.

    Attributes:
        driver: its driver half.
        served: its device half, with what serves it.
        states: the arrays in which either half keeps its state, and what serves it the element under way.
        used: where in the queues' memory the used ring's index is.
        used_event: and where the driver says when it wants to be called.
    """

    driver: Any
    served: Any
    states: tuple[npt.NDArray[np.int64], ...]
    used: int
    used_event: int


def join(modules: dict[str, Any], kind: Any, number: int, blocks: int, ram: Ram, punches_max: int) -> Joined:
    """Join a queue.

    Args:
        modules: those of MODULES that were loaded.
        kind: a Queue of theirs.
        number: its place in the queues' memory.
        blocks: descriptors of an element at most.
        ram: guest memory.
        punches_max: holes that a turn punches at most.
    """
    size = 1 << max(_SIZE_MIN - 1, blocks - 1).bit_length()
    gpa = ram.queue_gpa + number * QUEUE_BYTES
    place = place_ring(size, gpa)
    desc, avail, used, end = place
    assert end <= gpa + QUEUE_BYTES
    driver = modules["virtio.split_ring.driver"].DriverRing(size, ram_address=0, place=place, event_idx=True)
    ring_device, queues = modules["virtio.split_ring.device_ring"], modules["host.device.queues.block_queue"]
    vars(ring_device)["used_idx"] = lambda _: 0
    ring = ring_device.DeviceRing(
        size, desc_address=desc, avail_address=avail, used_address=used, event_idx=True, indirect=False
    )
    control = modules["host.device.queues.element"].turn_control(punches_max=punches_max)
    served = queues.BlockQueue(kind, ring, control, np.zeros(ACCOUNT_WORDS, np.int64))
    places = used - ram.queue_gpa + 2, avail - ram.queue_gpa + 4 + 2 * size
    ranges = served.ranges[: len(ram.first_words)]  # there is room for more, but none is of less than a page
    return Joined(driver, served, (driver.state, ring.state, served.progress, ranges), *places)


def report_driver(modules: dict[str, Any], queue: Joined, transport: Any) -> Any:
    """A BalloonDriver over its queue."""
    return _made(
        modules["guest.driver.reporting"].BalloonDriver, transport, _ring=queue.driver, _outstanding=False, _index=0
    )


def inflate_driver(modules: dict[str, Any], queues: list[Joined], transport: Any, ram: Ram) -> Any:
    """An InflateDriver over its two, inflate and deflate."""
    inflate, deflate = queues
    kinds = modules["guest.driver.inflate"].Queue
    return _made(
        modules["guest.driver.inflate"].InflateDriver,
        transport,
        _rings={kinds.INFLATE: (0, inflate.driver), kinds.DEFLATE: (1, deflate.driver)},
        _gpas=np.array([ram.queue_gpa + len(ram.queue) - PFNS_BYTES]),
        _pfns=np.frombuffer(ram.queue, np.uint32)[-PFNS_BYTES // 4 :],
        _out=None,
    )


def _made(driver: Any, transport: Any, **parts: Any) -> Any:
    made = driver.__new__(driver)
    counted = [0] * (KICKS + 1)  # not an array, which would be part of the state: kicks are only counted
    made.__dict__.update(_transport=transport, _words=counted, **parts)
    return made
