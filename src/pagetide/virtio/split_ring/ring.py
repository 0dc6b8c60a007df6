"""The split virtqueue as both halves see it: layout, flags, notification rule and error codes (virtio 1.2, 2.7).

Fields are little-endian and are read and written with this machine's own loads and stores, so pagetide runs on
little-endian machines only. Addresses are int64 addresses of this process, unless the name says gpa.
"""

from typing import NamedTuple

from pagetide.atomics import load_u16_acquire
from pagetide.jit import kernel

QUEUE_SIZE_MAX = 32768
"""The largest queue size; a size is a power of two (virtio 1.2, 2.7)."""

INDIRECT_DESCS_MAX = 1024
"""Most descriptors that the device half takes from one element: a limit of its own, which 2.7.4.1 allows."""

ELEMENT_BYTES_MAX = 1 << 32
"""Most bytes that a driver may describe in one element (virtio 1.2, 2.7.5.2).

Linux's does not care: 32 blocks of 512 MiB, as kernels with pages of 64 KiB report them, are 16 GiB. Devices take them.
"""

INDEX_MASK = 0xFFFF
"""Ring indices are 16 bits wide and wrap at 65536 (virtio 1.2, 2.7.13.3)."""

DESC_ALIGN = 16
AVAIL_ALIGN = 2
USED_ALIGN = 4

# struct virtq_desc: le64 addr, le32 len, le16 flags, le16 next (2.7.5).
DESC_BYTES = 16
DESC_WORD = 8  # len, flags and next, as one 64-bit word
FLAGS_SHIFT = 32
NEXT_SHIFT = 48
LENGTH_MASK = 0xFFFF_FFFF

DESC_F_NEXT = 1
DESC_F_WRITE = 2
DESC_F_INDIRECT = 4

# struct virtq_avail: le16 flags, le16 idx, le16 ring[size], le16 used_event (2.7.6).
# struct virtq_used: le16 flags, le16 idx, (le32 id, le32 len)[size], le16 avail_event (2.7.8).
RING_FLAGS = 0
RING_IDX = 2
RING_ENTRIES = 4
AVAIL_ENTRY_BYTES = 2
USED_ENTRY_BYTES = 8

AVAIL_F_NO_INTERRUPT = 1
USED_F_NO_NOTIFY = 1

AGAIN = -1
"""Not an error: no free descriptors for this element, or no used element to take."""

BAD_ELEMENT = -2
USED_IDX = -3
USED_ID_RANGE = -4
USED_ID_NOT_OUTSTANDING = -5
AVAIL_IDX = -6
HEAD_RANGE = -7
NEXT_RANGE = -8
CHAIN_LOOPS = -9
INDIRECT_NOT_NEGOTIATED = -10
INDIRECT_WITH_NEXT = -11
INDIRECT_NESTED = -12
TABLE_LENGTH = -13
TABLE_TOO_LONG = -14
TABLE_OUTSIDE = -15
ARRAYS_TOO_SHORT = -16
BAD_PUSH = -17

_ERRORS = {
    AGAIN: "there is no room yet, or nothing there yet",
    BAD_ELEMENT: "an element must have from 1 descriptor to as many as the queue (virtio 1.2, 2.7.5.3.1) and its "
    "indirect table hold, lengths of 32 bits, and at most 2^32 bytes in total (2.7.5.2)",
    USED_IDX: "the device's used idx is ahead of what was made available to it, or went back (virtio 1.2, 2.7.8)",
    USED_ID_RANGE: "the device used an id that is no index of the descriptor table (virtio 1.2, 2.7.8)",
    USED_ID_NOT_OUTSTANDING: "the device used an id that heads no element it was given (virtio 1.2, 2.7.8)",
    AVAIL_IDX: "the driver's available idx went back, or more elements are outstanding than the queue has "
    "descriptors (virtio 1.2, 2.7.6.1 and 2.7.13)",
    HEAD_RANGE: "an available ring entry is no index of the descriptor table (virtio 1.2, 2.7.6)",
    NEXT_RANGE: "a descriptor's next is no index of its table (virtio 1.2, 2.7.5)",
    CHAIN_LOOPS: "a descriptor chain is longer than its table, so it has a loop (virtio 1.2, 2.7.5.2)",
    INDIRECT_NOT_NEGOTIATED: "a descriptor is indirect, but VIRTIO_F_INDIRECT_DESC was not negotiated "
    "(virtio 1.2, 2.7.5.3.1)",
    INDIRECT_WITH_NEXT: "a descriptor has both INDIRECT and NEXT set (virtio 1.2, 2.7.5.3.1)",
    INDIRECT_NESTED: "a descriptor within an indirect table is itself indirect (virtio 1.2, 2.7.5.3.1)",
    TABLE_LENGTH: "an indirect table's length is 0 or not a multiple of 16 bytes (virtio 1.2, 2.7.5.3)",
    TABLE_TOO_LONG: "an indirect table has more descriptors than this device takes in one element "
    "(a limit that virtio 1.2, 2.7.4.1, allows)",
    TABLE_OUTSIDE: "an indirect table is not within guest memory (virtio 1.2, 2.7.5.3)",
    ARRAYS_TOO_SHORT: "the arrays for an element's descriptors are shorter than the queue",
    BAD_PUSH: "only an element that was popped can be pushed, once, with a length of 32 bits (virtio 1.2, 2.7.8)",
}


class RingError(Exception):
    """The peer broke a rule of the virtqueue, or this side asked for what the rules forbid.

    Attributes:
        code: one of this module's negative codes.
    """

    def __init__(self, code: int) -> None:
        super().__init__(error_text(code))
        self.code = code


def error_text(code: int) -> str:
    """What a kernel's negative answer means, with the clause of virtio 1.2 that it comes from.

    Raises:
        KeyError: no kernel answers this code.
    """
    return _ERRORS[code]


def checked(answer: int) -> int:
    """A kernel's answer as a plain int.

    Raises:
        RingError: the answer is an error (negative, and not AGAIN).
    """
    if answer < AGAIN:
        raise RingError(int(answer))
    return int(answer)


class RingPlace(NamedTuple):
    """Where a virtqueue's parts are in guest memory, and the first byte after them."""

    desc_gpa: int
    avail_gpa: int
    used_gpa: int
    end_gpa: int


def check_queue_size(size: int) -> None:
    """Raise ValueError unless the size is a power of two from 1 to 32768 (virtio 1.2, 2.7)."""
    if not 1 <= size <= QUEUE_SIZE_MAX or size & (size - 1):
        raise ValueError(f"a queue size is a power of two from 1 to {QUEUE_SIZE_MAX}, not {size} (virtio 1.2, 2.7)")


def check_alignment(desc: int, avail: int, used: int) -> None:
    """Raise ValueError unless the addresses of the three parts are aligned (virtio 1.2, 2.7.1)."""
    for name, address, align in (
        ("descriptor table", desc, DESC_ALIGN),
        ("available ring", avail, AVAIL_ALIGN),
        ("used ring", used, USED_ALIGN),
    ):
        if address % align:
            raise ValueError(f"the {name} at {address:#x} is not aligned to {align} bytes (virtio 1.2, 2.7.1)")


def desc_table_bytes(size: int) -> int:
    """Bytes in a descriptor table of `size` descriptors."""
    return DESC_BYTES * size


def avail_ring_bytes(size: int) -> int:
    """Bytes in an available ring, used_event included."""
    return RING_ENTRIES + AVAIL_ENTRY_BYTES * size + 2


def used_ring_bytes(size: int) -> int:
    """Bytes in a used ring, avail_event included."""
    return RING_ENTRIES + USED_ENTRY_BYTES * size + 2


def place_ring(size: int, gpa: int) -> RingPlace:
    """Lay out a queue's parts one after the other from this guest-physical address on, each aligned.

    Raises:
        ValueError: the size is not one a queue can have, or the address is not a multiple of 16.
    """
    check_queue_size(size)
    avail_gpa = gpa + desc_table_bytes(size)
    used_gpa = avail_gpa + avail_ring_bytes(size) + USED_ALIGN - 1 & -USED_ALIGN
    check_alignment(gpa, avail_gpa, used_gpa)
    return RingPlace(gpa, avail_gpa, used_gpa, used_gpa + used_ring_bytes(size))


@kernel
def need_event(event: int, new: int, old: int) -> bool:
    """Whether moving a ring's idx from `old` to `new` passes the entry that the other side asked to be notified of.

    The three are 16-bit indices. True if entry `event` is one of `old … new - 1`, modulo 65536 (virtio 1.2, 2.7.7.2
    and 2.7.10.1; `vring_need_event` in Linux).
    """
    return (new - event - 1 & INDEX_MASK) < (new - old & INDEX_MASK)


@kernel
def used_idx(used_address: int) -> int:
    """The idx of the used ring at this address of the process."""
    return load_u16_acquire(used_address + RING_IDX)
