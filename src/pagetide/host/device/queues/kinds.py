"""Which class serves which of the balloon's queues. To serve another, write its class and add it here."""

import numpy as np
import numpy.typing as npt

from pagetide.host.device.queues.block_queue import BlockQueue
from pagetide.host.device.queues.hinting import HintingQueue, HintingRound
from pagetide.host.device.queues.statistics import StatisticsQueue
from pagetide.host.memory.ledger import DEFLATE_ACCOUNT, INFLATE_ACCOUNT, REPORT_ACCOUNT
from pagetide.virtio.balloon import Queue
from pagetide.virtio.split_ring.device_ring import DeviceRing

AnyQueue = BlockQueue | StatisticsQueue | HintingQueue

_ACCOUNTS = {Queue.INFLATE: INFLATE_ACCOUNT, Queue.DEFLATE: DEFLATE_ACCOUNT, Queue.REPORTING: REPORT_ACCOUNT}

_Words = npt.NDArray[np.int64]


def make_queue(
    kind: Queue, ring: DeviceRing, *, control: _Words, ledger: _Words, hinting: HintingRound, counted_bytes: int
) -> AnyQueue:
    """One that is started.

    Args:
        kind: which of them.
        ring: its device half.
        control: the device's control array.
        ledger: the ledger's words.
        hinting: the device's round of hints.
        counted_bytes: as for `BlockQueue`.
    """
    if kind is Queue.STATS:
        return StatisticsQueue(ring, ledger)
    if kind is Queue.FREE_PAGE:
        return HintingQueue(ring, hinting, ledger)
    return BlockQueue(kind, ring, control, ledger[_ACCOUNTS[kind]], counted_bytes=counted_bytes)
