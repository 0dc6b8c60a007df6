"""What can be seen of a guest of the server, by who changes nothing."""

from collections.abc import Callable
from typing import NamedTuple

from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.target import Sizes
from pagetide.host.guest.kicks import Kicks
from pagetide.host.guest.session import VhostUserSession
from pagetide.host.memory.block_states import look_at_blocks
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.held import Held, HeldLook
from pagetide.host.memory.page_map import MapPiece
from pagetide.virtio.balloon import Config


class Parts(NamedTuple):
    """What a guest of the server is made of."""

    device: BalloonDevice
    memory: GuestMemory
    kicks: Kicks
    session: VhostUserSession


class ObservedGuest:
    """The figures and states of one guest, from its device, its memory and its connection.

    Attributes:
        name: what the log calls it.
    """

    name: str

    def __init__(self, name: str, parts: Parts, clock_ns: Callable[[], int]) -> None:
        """See what its parts have; by the clock, looks at its memory are spread."""
        self.name = name
        self._device, self._memory, self._kicks, self._session = parts
        self._held = HeldLook(clock_ns)
        self._look_ns = clock_ns

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._session.fileno()

    @property
    def features(self) -> int:
        """What the driver accepted."""
        return self._session.features

    @property
    def config(self) -> Config:
        """The configuration space as it is now."""
        return self._device.config.fields

    @property
    def ram_bytes(self) -> int:
        """Memory that the guest has, as well as it can be told; 0 before it has shared any."""
        return self._device.ram_bytes

    @property
    def memory_is_ram(self) -> bool:
        """Whether all that it shares is in memory files, where we wait for nothing but what their owner does."""
        return self._memory.is_ram

    @property
    def shared_bytes(self) -> int:
        """Memory that the guest has shared, which may be more than it has (virtio-mem)."""
        return self._device.target.shared_bytes

    @property
    def sizes(self) -> Sizes:
        """`ram_bytes`, `shared_bytes` and what the host holds, of one look."""
        return self._device.target.sizes

    @property
    def statistics(self) -> dict[str, int]:
        """The guest's memory statistics as told last, by name."""
        return self._device.statistics

    @property
    def waiting(self) -> dict[str, int]:
        """How many elements wait in each of its started queues, by the queue's name."""
        return self._device.queues.waiting()

    @property
    def paused(self) -> bool:
        """Whether reports stay in the ring for now, so that none is lost."""
        return self._device.paused

    @property
    def inhibited(self) -> bool:
        """Whether nothing of this guest's is discarded."""
        return self._device.inhibited

    @property
    def hinting(self) -> bool:
        """Whether a round of free page hints is asked for or under way."""
        return self._device.hinting

    @property
    def state(self) -> str:
        """What is done for it, in one word or two: `serving`, or the first of these that holds.

        `needs reset` after a broken ring; `no shared memory` if its queues are in RAM that is private to its front-end
        (with QEMU memory-backend-ram, or share=off), of which nothing can be given back; `no driver` before one has
        started a queue; `stopped` while the VM stands still, or after its driver has gone without a reset; `paused`;
        `inhibited`.
        """
        wanted = "paused" if self.paused else "inhibited" if self.inhibited else "serving"
        return self._session.state or wanted

    def look_at_held(self) -> Held:
        """What the host holds of its memory in RAM and in swap; ask again while that is being counted."""
        return self._held.step(self._memory.regions)

    def look_at_blocks(self, first: int) -> MapPiece:
        """The piece of its page map that begins with this block."""
        return look_at_blocks(self._memory.mappings, first, self._look_ns)

    @property
    def looking(self) -> bool:
        """Whether a look is under way."""
        return self._memory.looking
