"""Measures what discarding costs the host: with its own kernel, of what another process has touched."""

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.host.memory.discard import punch_ranges
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import ACCOUNT_WORDS
from pagetide.host.memory.ranges import RANGE_COLUMNS, RANGE_END, RANGE_START
from pagetide.machine.calibration.touch_process import TouchProcess
from pagetide.memory.guest_ram import GuestRam
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion

PIECE_SIZES_BYTES = (4 << 10, 64 << 10, 2 << 20, 32 << 20)
_BATCH = 32
_BATCHES = 8


class Discarding(NamedTuple):
    """Nanoseconds a piece, an entry a batch.

    Attributes:
        pieces_ns: of what was there, by size as in PIECE_SIZES_BYTES.
        holes_ns: of what was not.
        splits_ns: of a first part of a huge page, more than of the same part of one that is split; none of small pages.
    """

    pieces_ns: list[list[float]]
    holes_ns: list[float]
    splits_ns: list[float]


def measure_discarding(ram: GuestRam, rounds: int, *, huge: bool) -> Discarding:
    """Discard pieces that lie apart, as the host does: what is there is asked, punched and read back.

    Args:
        ram: the memory.
        rounds: how many times over.
        huge: whether its file has huge pages; then no two pieces are of the same one, and one that is smaller is of a
            page that is split.
    """
    found = Discarding([], [], [])
    memory = GuestMemory()
    rng = np.random.default_rng(1)
    try:
        memory.add(MemoryRegion(0, ram.size_bytes, 0, 0), os.dup(ram.fd))
        regions = memory.region_map.table
        with TouchProcess(ram.fd) as guest:
            if huge:
                found.splits_ns.extend(_splits_ns(regions, guest, ram.size_bytes, rounds))
            for size_bytes in PIECE_SIZES_BYTES:
                stride = max(2 * size_bytes, HUGE_PAGE_BYTES) if huge else 2 * size_bytes
                starts = np.arange(0, ram.size_bytes - size_bytes, stride)
                costs_ns = []
                for _ in range(rounds):
                    guest.touch()
                    chosen = rng.permutation(starts)[: _BATCH * _BATCHES]
                    for batch in np.array_split(chosen, min(_BATCHES, len(starts))):
                        costs_ns.append(_each_ns(regions, batch, size_bytes))
                        found.holes_ns.append(_each_ns(regions, batch, size_bytes))
                found.pieces_ns.append(costs_ns[1:])
    finally:
        memory.close()
    return found


def _splits_ns(regions: npt.NDArray[np.int64], guest: TouchProcess, size_bytes: int, rounds: int) -> Iterator[float]:
    """Discard a page of each huge page, have the guest touch it, and discard it again: how much more the first took.

    All are split in the end.
    """
    starts = np.arange(0, size_bytes, HUGE_PAGE_BYTES)
    for _ in range(rounds):
        _each_ns(regions, starts, HUGE_PAGE_BYTES)
        guest.touch()
        first_ns = _each_ns(regions, starts, PAGE_SIZE_BYTES)
        guest.touch()
        yield first_ns - _each_ns(regions, starts, PAGE_SIZE_BYTES)


def _each_ns(regions: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], size_bytes: int) -> float:
    ranges = np.zeros((len(starts), RANGE_COLUMNS), np.int64)
    ranges[:, RANGE_START] = np.sort(starts)
    ranges[:, RANGE_END] = ranges[:, RANGE_START] + size_bytes
    account = np.zeros(ACCOUNT_WORDS, np.int64)
    start_ns = time.thread_time_ns()
    failed = punch_ranges(regions, ranges, len(ranges), 1, account)
    spent_ns = time.thread_time_ns() - start_ns
    assert failed == 0
    return spent_ns / len(ranges)
