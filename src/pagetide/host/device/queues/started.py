"""The started queues of one device, and where those stand that were stopped or never started."""

from collections.abc import Iterator
from typing import NamedTuple

from pagetide.host.device.queues.block_queue import BlockQueue
from pagetide.host.device.queues.kinds import AnyQueue
from pagetide.host.device.queues.offered import OfferedQueue
from pagetide.host.device.queues.place import QueueLostError, QueuePlace, addresses
from pagetide.host.memory.guest_memory import DeviceMemory
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.virtio.balloon import Queue
from pagetide.virtio.split_ring.ring import used_idx

_NAMES = tuple(queue.name.lower() for queue in Queue)


class Started(NamedTuple):
    """One that is started: which of the balloon's it is, where it is, and what serves it."""

    kind: Queue
    place: QueuePlace
    queue: AnyQueue


class StartedQueues:
    """All of a device's, by index.

    Attributes:
        once_started: those that have been started since the driver's last reset.
        left_at: the available ring entry that a stopped one is to go on with.
    """

    once_started: set[int]
    left_at: dict[int, int]

    def __init__(self, memory: DeviceMemory) -> None:
        """Have none; the memory is what they are in."""
        self.once_started = set()
        self.left_at = {}
        self._memory = memory
        self._started: dict[int, Started] = {}
        self._left_amid: dict[int, int] = {}
        self._ends: dict[int, int] | None = None

    def __iter__(self) -> Iterator[int]:
        return iter(self._started)

    def __len__(self) -> int:
        return len(self._started)

    def get(self, index: int) -> Started | None:
        """A started one."""
        return self._started.get(index)

    def offered(self, index: int) -> OfferedQueue | None:
        """Words of a started queue for the loop's step, if that can serve its kind."""
        started = self._started.get(index)
        return OfferedQueue(started.queue) if started and isinstance(started.queue, BlockQueue) else None

    def index_of(self, kind: Queue) -> int | None:
        """The index of the started queue of this kind, if there is one."""
        return next((index for index, started in self._started.items() if started.kind is kind), None)

    def waiting(self) -> dict[str, int]:
        """How many elements of each wait to be served, by the queue's name; what its driver says, at most all."""
        return {
            _NAMES[started.kind]: min(started.place.size, ring.left_until(ring.avail_idx))
            for started in self._started.values()
            for ring in (started.queue.ring,)
        }

    def where_it_stands(self, place: QueuePlace) -> int:
        """The base for one that a killed predecessor served: queues are served in order, up to the used index.

        Raises:
            GuestMemoryError: a part of it is not in the guest's memory.
        """
        return int(used_idx(addresses(self._memory, place)[2]))

    def start(self, index: int, started: Started) -> None:
        """Serve one from now on."""
        self.once_started.add(index)
        self._started[index] = started

    def take_counted_bytes(self, index: int, next_avail: int) -> int:
        """What was counted of the element in which one was left, if it goes on there now."""
        counted_bytes = self._left_amid.pop(index, 0)
        return counted_bytes if self.left_at.get(index) == next_avail else 0

    def stop(self, index: int) -> int | None:
        """Serve one no more; the available ring entry to take next, or None if it was not started."""
        started = self._started.pop(index, None)
        if started is None:
            return None
        started.queue.ring.stop()
        self.left_at[index] = started.queue.next_avail
        if isinstance(started.queue, BlockQueue):
            self._left_amid[index] = started.queue.counted_bytes
        return self.left_at[index]

    def memory_changed(self) -> None:
        """Find them again where the guest's memory is now.

        Raises:
            QueueLostError: a part of one is not in it; none is served then.
        """
        for index, (_, place, queue) in self._started.items():
            try:
                queue.ring.move(*addresses(self._memory, place))
            except GuestMemoryError as error:
                self._started.clear()
                raise QueueLostError(index, str(error)) from error

    @property
    def finishing(self) -> bool:
        """Whether only what was in the rings at some time is served."""
        return self._ends is not None

    def finish(self) -> None:
        """Serve what is in the rings now, and nothing that comes later."""
        self._ends = {index: started.queue.ring.avail_idx for index, started in self._started.items()}

    def budget(self, index: int, wanted: int) -> int:
        """How many elements of a started one may be served, of so many."""
        if self._ends is None:
            return wanted
        return min(wanted, self._started[index].queue.ring.left_until(self._ends[index])) if index in self._ends else 0

    def forget(self) -> None:
        """Their driver is another one, or was reset: nobody goes on where they were left."""
        self.left_at.clear()
        self._left_amid.clear()
