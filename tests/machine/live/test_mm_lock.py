"""A thread that holds this process's mm lock."""

import contextlib
import mmap
import resource
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pagetide import linux
from pagetide.machine.live.mm_lock import MmLockHolder, hold_mm_lock, split_mapping, vmas
from pagetide.memory.guest_ram import GuestRam

pytestmark = pytest.mark.alone

MIB = 1 << 20


def waits(enough: Callable[[], bool]) -> int:
    """How often this thread slept in the kernel, and not only lost the processor, as it mapped until it was enough."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    while not enough():
        linux.munmap(linux.mmap(0, 4096, linux.PROT_NONE, linux.MAP_PRIVATE | linux.MAP_ANONYMOUS), 4096)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before


@contextlib.contextmanager
def without_the_lock() -> Iterator[None]:
    """A thread that is as busy, but changes the protection of nothing, for which the kernel takes no lock."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            hold_mm_lock(0, 0, np.zeros(2, np.int64), 100_000, np.zeros(1, np.int64))

    thread = threading.Thread(target=spin)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.jit
def test_others_wait_for_the_lock() -> None:
    """Mappings sleep while the thread runs, far more often than beside a thread that is only as busy."""
    for_it = without_it = 0
    for _ in range(3):
        with MmLockHolder() as holder:
            give_up_s = time.monotonic() + 10
            while holder.holds < 10:
                assert time.monotonic() < give_up_s
            most = holder.holds + 200
            for_it += waits(lambda: holder.holds >= most)  # noqa: B023 - it is called right here
        with without_the_lock():
            end_s = time.monotonic() + 0.2
            without_it += waits(lambda: time.monotonic() >= end_s)  # noqa: B023
    assert for_it > 2 * without_it + 10


def test_guest_ram_becomes_two_vmas() -> None:
    """The mapping of that size, and no other one, is split in the middle; its content stays."""
    size_bytes = 6 * MIB
    with GuestRam.create(size_bytes, "memfd") as ram, mmap.mmap(-1, 2 * MIB):
        ram.words[0], ram.words[-1] = 1, 2
        assert sum(vma.start == ram.address for vma in vmas()) == 1
        assert not split_mapping(size_bytes + MIB)
        assert split_mapping(size_bytes)
        parts = [vma for vma in vmas() if ram.address <= vma.start < ram.address + size_bytes]
        assert [vma.end - vma.start for vma in parts] == [3 * MIB, 3 * MIB]
        assert (ram.words[0], ram.words[-1]) == (1, 2)
