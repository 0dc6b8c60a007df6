"""A started inflate, deflate or reporting queue as an object: what its turns (turn.py) work on."""

import numpy as np
import numpy.typing as npt

from pagetide.host.device.queues.element import COUNTED_BYTES, DEALT_BYTES, PROGRESS_WORDS
from pagetide.host.device.queues.inflate import PFNS_MAX
from pagetide.host.device.queues.joined import JOINED_RANGES_MAX
from pagetide.host.device.queues.turn import Turn, take_turn, told
from pagetide.host.memory.ledger import ACCOUNT_WORDS
from pagetide.host.memory.ranges import RANGE_COLUMNS
from pagetide.virtio.balloon import Queue
from pagetide.virtio.split_ring.device import UNDER_WAY
from pagetide.virtio.split_ring.device_ring import DeviceRing

_Words = npt.NDArray[np.int64]


class BlockQueue:
    """A started inflate, deflate or reporting queue.

    Attributes:
        ring: its device half.
        kind: which of the three it is.
        control: the device's control array.
        account: the queue's account in the ledger.
        spare: what is not accounted for again.
        progress: how far the element under way has come, if `ring.state[UNDER_WAY]` says that there is one.
        ranges: what of it is still to be discarded.
    """

    def __init__(
        self, kind: Queue, ring: DeviceRing, control: _Words, account: _Words, *, counted_bytes: int = 0
    ) -> None:
        """Serve a ring.

        Args:
            kind: which of the three it is.
            ring: its device half.
            control: the device's control array.
            account: the queue's account in the ledger.
            counted_bytes: how much of the element that comes first was dealt with, and accounted for, before.
        """
        assert kind in {Queue.INFLATE, Queue.DEFLATE, Queue.REPORTING}
        self.ring = ring
        self.kind = int(kind)
        self.control = control
        self.account = account
        self.spare = np.zeros(ACCOUNT_WORDS, np.int64)
        self.progress = np.zeros(PROGRESS_WORDS, np.int64)
        self.progress[COUNTED_BYTES] = counted_bytes
        self.ranges = np.zeros((JOINED_RANGES_MAX + max(len(ring.gpas), PFNS_MAX), RANGE_COLUMNS), np.int64)

    @property
    def next_avail(self) -> int:
        """The available ring entry at which another device would go on."""
        return self.ring.next_avail

    @property
    def counted_bytes(self) -> int:
        """How much of the element that is to be served next, whole, was dealt with and accounted for."""
        dealt_bytes = self.progress[DEALT_BYTES] if self.ring.state[UNDER_WAY] else 0
        return int(max(dealt_bytes, self.progress[COUNTED_BYTES]))

    def process(self, regions: _Words, budget: int, skip: int) -> Turn:
        """Serve up to `budget` elements, or a part of one.

        Args:
            regions: the region map's table; it may be another each time.
            budget: most elements.
            skip: 0, or the word of the account that counts what is not to be discarded.

        Raises:
            RingError: the driver broke a rule of the ring; nothing but a reset helps.
        """
        ring = self.ring
        answer = take_turn(
            self.kind,
            ring.state,
            regions,
            ring.gpas,
            ring.lengths,
            ring.flags,
            self.ranges,
            self.progress,
            self.control,
            self.account,
            self.spare,
            budget,
            skip,
        )
        return self.turn_of(answer)

    def turn_of(self, answer: int) -> Turn:
        """What an answer of `take_turn` for this queue says.

        Raises:
            RingError: the driver broke a rule of the ring; nothing but a reset helps.
        """
        return told(answer, self.control)
