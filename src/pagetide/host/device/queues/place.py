"""Where the queues of a guest are in its memory."""

from typing import NamedTuple

from pagetide.host.memory.guest_memory import DeviceMemory
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.virtio.split_ring.ring import avail_ring_bytes, desc_table_bytes, used_ring_bytes


class NotSharedError(GuestMemoryError):
    """A queue is started of a guest of whose memory nothing is shared: its RAM is private to its front-end."""

    def __init__(self) -> None:
        super().__init__(
            "the front-end shares none of the guest's memory, so nothing can be given back: the guest needs RAM that "
            "both can see (with QEMU memory-backend-memfd or memory-backend-file, with share=on)"
        )


class QueueLostError(GuestMemoryError):
    """A started queue is in the guest's memory no more.

    Attributes:
        queue: its index.
    """

    queue: int

    def __init__(self, queue: int, reason: str) -> None:
        super().__init__(reason)
        self.queue = queue


class QueuePlace(NamedTuple):
    """Where a queue is, as a frontend tells it.

    Attributes:
        size: in descriptors.
        desc_user_address: the descriptor table; like the other two an address of the frontend's.
        avail_user_address: the available ring.
        used_user_address: the used ring.
    """

    size: int
    desc_user_address: int
    avail_user_address: int
    used_user_address: int


def addresses(memory: DeviceMemory, place: QueuePlace) -> tuple[int, int, int]:
    """Where in this process its descriptor table, its available and its used ring are.

    Raises:
        GuestMemoryError: one of them is not in the guest's memory.
    """
    try:
        return (
            memory.address_of(place.desc_user_address, desc_table_bytes(place.size)),
            memory.address_of(place.avail_user_address, avail_ring_bytes(place.size)),
            memory.address_of(place.used_user_address, used_ring_bytes(place.size)),
        )
    except GuestMemoryError as error:
        if len(memory.region_map.table) == 0:
            raise NotSharedError from error
        raise GuestMemoryError(f"a queue is not in the guest's memory: {error}") from error
