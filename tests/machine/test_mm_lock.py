"""A thread that holds this process's mm lock."""

import mmap
import time
from collections.abc import Callable

import pytest

from pagetide import linux
from pagetide.machine.mm_lock import MmLockHolder, split_mapping, vmas
from pagetide.memory.guest_ram import GuestRam

MIB = 1 << 20
SLOW_S = 50e-6


def slow_share(enough: Callable[[], bool]) -> float:
    """Which share of the time went into mappings that took over SLOW_S to make or remove, until it is enough."""
    slow_s, begin_s = 0.0, time.perf_counter()
    while not enough():
        start_s = time.perf_counter()
        linux.munmap(linux.mmap(0, 4096, linux.PROT_NONE, linux.MAP_PRIVATE | linux.MAP_ANONYMOUS), 4096)
        took_s = time.perf_counter() - start_s
        slow_s += took_s if took_s > SLOW_S else 0.0
    return slow_s / (time.perf_counter() - begin_s)


@pytest.mark.jit
def test_others_wait_for_the_lock() -> None:
    """Much of the time goes into waiting for it while the thread runs, and little when it does not."""
    with MmLockHolder() as holder:
        give_up_s = time.monotonic() + 10
        while holder.holds < 10:
            assert time.monotonic() < give_up_s
        most = holder.holds + 500
        with_it = slow_share(lambda: holder.holds >= most)
    end_s = time.monotonic() + 0.1
    assert with_it > 3 * slow_share(lambda: time.monotonic() >= end_s)
    assert with_it > 0.2


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
