"""A zone: the guest's page frames, their allocator, and the arena that holds all of its state.

The work is done by kernels over two arrays (zone_layout.py): the buddy allocator (buddy.py), per-CPU lists (pcp.py),
allocation and freeing with locks (page_alloc.py), isolation for reporting (isolate.py). `Zone` owns and checks the
arrays, and wraps the kernels for callers that handle one block at a time.
"""

import mmap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.buddy import free_all
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.pcp import (
    LINUX_PCP_ORDERS,
    PCP_BATCH_PAGES,
    PCP_MAX_PAGES,
    linux_pcp_high,
    pcp_drain,
)
from pagetide.guest.allocator.recount import Block, blocks, candidates, free_list, pcp_listed, recount
from pagetide.guest.allocator.zone_layout import (
    LISTED_SHIFT,
    MAP_BASE,
    MIGRATETYPES,
    MOVABLE,
    NEXT,
    NR_PAGES,
    NR_VCPUS,
    PAGEBLOCKS,
    PCP_BATCH,
    PCP_HIGH,
    PCP_HIGH_MAX,
    PCP_LIMIT,
    PCP_ORDERS,
    PCP_RINGS,
    PCP_ROOM,
    PREVIOUS,
    RECORD_WORDS,
    REPORTING_ORDER,
    TICK,
    TICK_MASK,
    TYPE_WORDS,
    TYPED_PCP_ORDERS,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    arena_bytes,
    frame_table_base,
    map_words,
    pageblocks_base,
    pcp_room,
    records_count,
    rings_base,
    vcpu_base,
    words_count,
)
from pagetide.memory.frame_table import GUEST_TICK, table_words
from pagetide.units import ORDER_MAX, ORDERS, PAGE_SIZE_BYTES

NEVER = ORDERS
"""A reporting order that no block has: the free path asks for no reporting."""

TICKS_PER_S = 10
"""What the zone's TICK counts; whoever runs a guest whose blocks must cool keeps it."""


def cool_ticks(cool_s: float) -> int:
    """Ticks after a free until a block has cooled: one more than fit, for the free fell somewhere in a tick."""
    return 0 if cool_s == 0 else int(cool_s * TICKS_PER_S) + 1


class Watermarks(NamedTuple):
    """Free pages below which allocation fails, reporting rests, and (high) nobody worries, in pages."""

    min: int
    low: int
    high: int


def linux_watermarks(nr_pages: int) -> Watermarks:
    """Linux's defaults (mm/page_alloc.c, `calculate_min_free_kbytes`, 6.1).

    Min is 4 * sqrt(KiB of memory) KiB, from 128 to 262144; low and high are a quarter and a half above it.
    """
    kib = nr_pages * PAGE_SIZE_BYTES // 1024
    min_pages = int(min(max((16 * kib) ** 0.5, 128), 262144)) * 1024 // PAGE_SIZE_BYTES
    return Watermarks(min_pages, min_pages + min_pages // 4, min_pages + min_pages // 2)


class Zone:
    """The page frames 0 … nr_pages of one guest.

    Attributes:
        words: int64 array, settings, counters and per-CPU lists.
        pages: uint32 array, four words a frame.
        frame_table: int64 array, the part of `words` that a host may share (frame_table.py).
    """

    words: npt.NDArray[np.int64]
    pages: npt.NDArray[np.uint32]
    frame_table: npt.NDArray[np.int64]

    def __init__(
        self,
        nr_pages: int,
        *,
        vcpus: int = 1,
        watermarks: Watermarks | None = None,
        reporting_order: int = NEVER,
        pcp_batch: int = PCP_BATCH_PAGES,
        pcp_high: tuple[int, int] | None = None,
        pcp_max: int = PCP_MAX_PAGES,
        pcp_orders: Iterable[int] = LINUX_PCP_ORDERS,
        migratetypes: bool = False,
        arena_fd: int = -1,
    ) -> None:
        """Make a zone with every frame free, in an arena of its own or in the memory file `arena_fd`.

        Watermarks, and how many pages per-CPU lists have, are Linux's unless they are given; Linux's grow to
        `pcp_max` pages at most. Without `migratetypes` all that is allocated is movable, and there is one free list an
        order.

        Raises:
            ValueError: a number is out of its range.
        """
        if not 1 <= nr_pages <= (1 << 32) // RECORD_WORDS - ORDERS * MIGRATETYPES:
            raise ValueError(f"a zone cannot have {nr_pages} pages")
        if vcpus < 1:
            raise ValueError(f"a zone needs at least one vCPU, not {vcpus}")
        marks = linux_watermarks(nr_pages) if watermarks is None else watermarks
        room = pcp_room(nr_pages, vcpus, pcp_max)
        if pcp_high is None:
            pcp_high = linux_pcp_high(nr_pages, marks.low, vcpus, pcp_batch, min(pcp_max, room - 1))
        high, high_max = pcp_high
        if not 1 <= pcp_batch <= high <= high_max < room:
            raise ValueError(f"a per-CPU list cannot have batches of {pcp_batch} and hold {high} to {high_max} pages")
        self._arena = mmap.mmap(arena_fd, arena_bytes(nr_pages, vcpus, pcp_max))
        self.words = np.frombuffer(self._arena, np.int64, words_count(nr_pages, vcpus, pcp_max))
        records = records_count(nr_pages, MIGRATETYPES if migratetypes else 1)
        self.pages = np.frombuffer(self._arena, np.uint32, records, self.words.nbytes)
        table = frame_table_base(vcpus)
        self.frame_table = self.words[table : table + table_words(nr_pages)]
        settings = {
            NR_PAGES: nr_pages,
            NR_VCPUS: vcpus,
            REPORTING_ORDER: reporting_order,
            WMARK_MIN: marks.min,
            WMARK_LOW: marks.low,
            WMARK_HIGH: marks.high,
            PCP_BATCH: pcp_batch,
            PCP_HIGH: high,
            PCP_HIGH_MAX: high_max,
            MAP_BASE: self.words.shape[0] - map_words(nr_pages),
            PAGEBLOCKS: pageblocks_base(nr_pages, vcpus) if migratetypes else 0,
            TYPED_PCP_ORDERS if migratetypes else PCP_ORDERS: sum(1 << order for order in set(pcp_orders)),
        }
        for vcpu in range(vcpus):
            settings[vcpu_base(vcpu) + PCP_LIMIT] = high
            for migratetype in range(MIGRATETYPES):
                lists = vcpu_base(vcpu) + migratetype * TYPE_WORDS
                settings[lists + PCP_RINGS] = rings_base(nr_pages, vcpus, pcp_max, vcpu, migratetype)
                settings[lists + PCP_ROOM] = room
        for index, value in settings.items():
            self.words[index] = value
        for head in range(nr_pages, records // RECORD_WORDS):
            self.pages[head * RECORD_WORDS + NEXT] = self.pages[head * RECORD_WORDS + PREVIOUS] = head
        free_all(self.words, self.pages)

    def allocate(self, order: int, vcpu: int = 0, migratetype: int = MOVABLE) -> int | None:
        """Allocate a block of 2^order pages; its first frame, or None if there is none."""
        self._check(order, vcpu)
        pfn = allocate(self.words, self.pages, vcpu, order | migratetype << LISTED_SHIFT)
        return None if pfn < 0 else int(pfn)

    def free(self, pfn: int, order: int, vcpu: int = 0) -> None:
        """Free a block.

        Raises:
            ValueError: no block of this order is allocated there.
        """
        self._check(order, vcpu)
        if free(self.words, self.pages, vcpu, pfn, order) < 0:
            raise ValueError(f"no block of order {order} is allocated at frame {pfn}")

    def drain_pcp(self, vcpu: int) -> None:
        """Give a vCPU's per-CPU lists back to the buddy allocator."""
        self._check(0, vcpu)
        pcp_drain(self.words, self.pages, vcpu)

    def tick(self, now_s: float) -> None:
        """Set the clock by which blocks cool."""
        self.words[TICK] = self.frame_table[GUEST_TICK] = int(now_s * TICKS_PER_S) & TICK_MASK

    def _check(self, order: int, vcpu: int) -> None:
        if not 0 <= order <= ORDER_MAX:
            raise ValueError(f"there is no order {order}")
        if not 0 <= vcpu < self.words[NR_VCPUS]:
            raise ValueError(f"there is no vCPU {vcpu}")

    def blocks(self) -> Iterator[Block]:
        """Every block, by position (`recount.blocks`); the zone must be at rest."""
        return blocks(self.words, self.pages)

    def free_list(self, order: int, migratetype: int = MOVABLE) -> list[int]:
        """The frames on a free list, head first; the zone must be at rest."""
        return free_list(self.words, self.pages, order, migratetype)

    def candidates(self) -> list[int]:
        """The positions in the candidate map, in order; the zone must be at rest."""
        return candidates(self.words)

    def pcp_list(self, vcpu: int, order: int = 0, migratetype: int = MOVABLE) -> list[int]:
        """The first frames of the blocks on a vCPU's list of an order, the next to be allocated last."""
        return pcp_listed(self.words, vcpu, order, migratetype)

    def check(self) -> None:
        """Recount everything; the zone must be at rest.

        Raises:
            AssertionError: a page is not in exactly one place, or a counter differs from the recount.
        """
        recount(self.words, self.pages, self.frame_table)
