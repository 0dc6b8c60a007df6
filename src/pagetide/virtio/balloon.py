"""The traditional memory balloon's constants (virtio 1.2, 5.5).

A divergence: 5.5.2 numbers the queues 0 to 4 for good, but Linux and QEMU leave no gap for a queue that was not
negotiated. Guests of Linux 6.1, 6.12 and 7.2 were seen to use queue 2 for reporting when STATS_VQ was not negotiated
and 3 when it was. `queues` gives those numbers. QEMU's own device always has a stats queue, negotiated or not: accept
STATS_VQ from it.
"""

import enum
import struct
from typing import NamedTuple

DEVICE_ID = 5
"""The balloon's virtio device number (virtio 1.2, 5.5.1)."""


class Feature(enum.IntFlag, boundary=enum.KEEP):
    """Feature bits, as masks: the balloon's (virtio 1.2, 5.5.3) and the reserved ones it is used with (clause 6)."""

    MUST_TELL_HOST = 1 << 0
    STATS_VQ = 1 << 1
    DEFLATE_ON_OOM = 1 << 2
    FREE_PAGE_HINT = 1 << 3
    PAGE_POISON = 1 << 4
    REPORTING = 1 << 5
    DEVICE_INIT_REPORTED = 1 << 6
    """A draft of May 2026 (virtio-spec issue 244)."""
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32


class Status(enum.IntFlag, boundary=enum.KEEP):
    """Device status bits (virtio 1.2, 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Queue(enum.IntEnum):
    """The virtqueues in the order of virtio 1.2, 5.5.2; `queues` gives the indices that are really used."""

    INFLATE = 0
    DEFLATE = 1
    STATS = 2
    FREE_PAGE = 3
    REPORTING = 4


_QUEUE_FEATURE = {
    Queue.STATS: Feature.STATS_VQ,
    Queue.FREE_PAGE: Feature.FREE_PAGE_HINT,
    Queue.REPORTING: Feature.REPORTING,
}


def queues(features: int) -> tuple[Queue, ...]:
    """The virtqueues that exist with these negotiated features; a queue's place is its index."""
    return tuple(queue for queue in Queue if queue not in _QUEUE_FEATURE or features & _QUEUE_FEATURE[queue])


_CONFIG = struct.Struct("<4I")


class Config(NamedTuple):
    """`struct virtio_balloon_config`, the device configuration (virtio 1.2, 5.5.4).

    Attributes:
        num_pages: how many 4 KiB pages the device wants in the balloon.
        actual: how many the driver says are in it.
        free_page_hint_cmd_id: CMD_ID_STOP, CMD_ID_DONE or the hinting round's number; with FREE_PAGE_HINT.
        poison_val: what the driver fills free pages with, written by it; with PAGE_POISON.
    """

    num_pages: int = 0
    actual: int = 0
    free_page_hint_cmd_id: int = 0
    poison_val: int = 0

    def encode(self) -> bytes:
        """The 16 bytes of configuration space.

        Raises:
            struct.error: a field is not an unsigned number of 32 bits.
        """
        return _CONFIG.pack(*self)

    @classmethod
    def decode(cls, space: bytes) -> "Config":
        """Read the 16 bytes of configuration space.

        Raises:
            struct.error: there are not 16 of them.
        """
        return cls(*_CONFIG.unpack(space))


CONFIG_BYTES = _CONFIG.size
"""Bytes in the device configuration."""

CONFIG_NUM_PAGES = 0
CONFIG_ACTUAL = 4
CONFIG_FREE_PAGE_HINT_CMD_ID = 8
CONFIG_POISON_VAL = 12
"""Offsets of the fields, for accesses to a part of the configuration."""

CMD_ID_STOP = 0
"""No hinting round is valid; hinted pages stay with the driver (virtio 1.2, 5.5.6.5)."""

CMD_ID_DONE = 1
"""The device needs no more hints and the driver may use all hinted pages (virtio 1.2, 5.5.6.5)."""


class Stat(enum.IntEnum):
    """Tags of memory statistics (virtio 1.2, 5.5.6.4); those from OOM_KILL on are Linux's own additions."""

    SWAP_IN = 0
    SWAP_OUT = 1
    MAJFLT = 2
    MINFLT = 3
    MEMFREE = 4
    MEMTOT = 5
    AVAIL = 6
    CACHES = 7
    HTLB_PGALLOC = 8
    HTLB_PGFAIL = 9
    OOM_KILL = 10
    ALLOC_STALL = 11
    ASYNC_SCAN = 12
    DIRECT_SCAN = 13
    ASYNC_RECLAIM = 14
    DIRECT_RECLAIM = 15


STAT = struct.Struct("<HQ")
"""`struct virtio_balloon_stat`: a tag and a value, packed in 10 bytes (virtio 1.2, 5.5.6.3)."""
