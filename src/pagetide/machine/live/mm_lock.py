"""Holds the mm lock of this process for writing, again and again: what S10 fears of a host.

A thread changes the protection of MAPPED_BYTES of its own, page by page populated, back and forth. The kernel holds the
lock of the whole address space for as long as that takes, and everything in the process that needs it waits: mmap,
munmap and, in a range across two VMAs, madvise. Within one VMA faults and advice take only the lock of that VMA (Linux
6.4 and later); so the thread can also split the mapping of the guest's RAM in two. The loop is a kernel, so that
Python's own lock does not slow it down.
"""

import threading
from typing import Any, NamedTuple, Self

import numpy as np

from pagetide import linux
from pagetide.jit import external, int32, int64, kernel
from pagetide.units import PAGE_SIZE_BYTES

MAPPED_BYTES = 32 << 20
"""What the thread maps; to change its protection takes about a tenth of a millisecond."""

_LOOK_AGAIN_S = 0.01
_ROUNDS = 50
_mprotect = external("mprotect", int32, int64, int64, int32)


@kernel
def hold_mm_lock(address: int, length_bytes: int, protections: Any, rounds: int, holds: Any) -> int:
    """Change the protection of a mapping of this process, in turn to each given, and count; -1 if the kernel refuses.

    Args:
        address: where the mapping is.
        length_bytes: how long it is.
        protections: int64 array, as mprotect(2) has them.
        rounds: how many times to go through them.
        holds: int64 array of one, the count.
    """
    for _ in range(rounds):
        for index in range(protections.shape[0]):
            if _mprotect(address, length_bytes, protections[index]) != 0:
                return -1
            holds[0] += 1
    return 0


class Vma(NamedTuple):
    """A line of /proc/self/maps."""

    start: int
    end: int
    shared: bool


def vmas() -> list[Vma]:
    """All mappings of this process, by address."""
    found = []
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:  # noqa: PTH123 - a path would be longer
        for line in maps:
            addresses, permissions = line.split()[:2]
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append(Vma(start, end, permissions.endswith("s")))
    return found


class MmLockHolder:
    """The thread. Use as a context manager.

    Attributes:
        split: whether it has split the guest's RAM.
    """

    def __init__(self, split_bytes: int = 0) -> None:
        """Prepare; `split_bytes` is the size of the shared mapping that is to become two VMAs, 0 for none."""
        self._holds = np.zeros(1, np.int64)
        self.split = False
        self._split_bytes = split_bytes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="mm lock")

    @property
    def holds(self) -> int:
        """How many times it has taken the lock."""
        return int(self._holds[0])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _hold(self) -> None:
        protections = np.array([linux.PROT_READ, linux.PROT_READ | linux.PROT_WRITE], np.int64)
        flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_POPULATE
        address = linux.mmap(0, MAPPED_BYTES, int(protections[1]), flags)
        try:
            while self._split_bytes and not self.split and not self._over.wait(_LOOK_AGAIN_S):
                self.split = split_mapping(self._split_bytes)
            while not self._over.is_set():
                refused = hold_mm_lock(address, MAPPED_BYTES, protections, _ROUNDS, self._holds)
                assert refused == 0, "mprotect"
        finally:
            linux.munmap(address, MAPPED_BYTES)


def split_mapping(size_bytes: int) -> bool:
    """Split the shared mapping of this size into two VMAs in the middle; False if there is none."""
    found = [vma for vma in vmas() if vma.shared and vma.end - vma.start == size_bytes]
    for vma in found:
        middle = vma.start + size_bytes // 2 // PAGE_SIZE_BYTES * PAGE_SIZE_BYTES
        linux.madvise(middle, vma.end - middle, linux.MADV_DONTDUMP)  # a flag that the lower half does not have
    return bool(found)
