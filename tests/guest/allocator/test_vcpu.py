"""What a vCPU's operations do to real memory: stamps, refaults, and how they stop."""

import mmap
import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from pagetide.guest.allocator.operation import ALLOCATE, FREE, operations
from pagetide.guest.allocator.page_alloc import allocate, free
from pagetide.guest.allocator.pcp import pcp_drain_all
from pagetide.guest.allocator.report_costs import note_reported
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    FREE_PAGES,
    LOCK_CONTENDED,
    REFAULTED_PAGES,
    REPEATED_PAGES,
    REPORTING_ORDER,
    STAMP_ERRORS,
    STOP,
    WAKE_BLOCKS,
    vcpu_base,
)
from pagetide.guest.vcpu import BAD_FREE, DONE, NO_MEMORY, SLOT_WANTED, STOPPED, WORKER_WANTED, run_operations
from pagetide.jit import JIT_DISABLED, kernel
from pagetide.units import PAGE_SIZE_BYTES
from tests.guest.reporting.batches import batch_of

NR_PAGES = 256
BASE = vcpu_base(0)


class Guest:
    """A zone over real memory, and one vCPU that runs single operations."""

    def __init__(self, ram: mmap.mmap) -> None:
        self.ram = np.frombuffer(ram, np.int64).reshape(NR_PAGES, -1)
        self.zone = Zone(NR_PAGES, watermarks=Watermarks(0, 0, 0))
        self.slots = np.full(8, -1, np.int64)
        self.cursor = np.zeros(1, np.int64)

    def run(self, kind: int, *blocks: tuple[int, int]) -> int:
        """Run one operation for each (order, slot)."""
        orders, slots = np.array(blocks).T
        some = operations(kind, orders, slots)
        self.cursor[0] = 0
        zone, address = self.zone, self.ram.ctypes.data
        return run_operations(zone.words, zone.pages, address, 0, some, self.slots, self.cursor, len(some))

    @property
    def stamp_errors(self) -> int:
        return int(self.zone.words[BASE + STAMP_ERRORS])

    @property
    def refaulted_pages(self) -> int:
        return int(self.zone.words[BASE + REFAULTED_PAGES])


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest of 1 MiB."""
    with mmap.mmap(-1, NR_PAGES * PAGE_SIZE_BYTES) as ram:
        guest = Guest(ram)
        yield guest
        del guest.ram


def test_every_page_of_a_block_gets_its_own_stamp(guest: Guest) -> None:
    """Each page holds its frame number and its first generation."""
    assert guest.run(ALLOCATE, (4, 0)) == DONE
    pfn = guest.slots[0]
    assert guest.ram[pfn : pfn + 16, 0].tolist() == [1 << 32 | page for page in range(pfn, pfn + 16)]


def test_blocks_come_back_with_right_stamps(guest: Guest) -> None:
    """A block that nobody touched frees without an error, and the next generation differs."""
    for _ in range(3):
        assert guest.run(ALLOCATE, (4, 0), (0, 1)) == DONE
        assert guest.run(FREE, (4, 0), (0, 1)) == DONE
    assert guest.stamp_errors == 0
    assert guest.ram[0, 0] >> 32 == 3


@pytest.mark.parametrize("wrong", [0, 7 << 32])
def test_a_page_in_use_that_was_changed_or_discarded_is_an_error(guest: Guest, wrong: int) -> None:
    """A zero, as a discard leaves it, or any other stamp in an allocated page counts as one wrong stamp."""
    guest.run(ALLOCATE, (4, 0))
    guest.ram[guest.slots[0] + 5, 0] = wrong
    guest.run(FREE, (4, 0))
    assert guest.stamp_errors == 1


def test_a_free_page_that_was_changed_is_an_error(guest: Guest) -> None:
    """A free page holds its last stamp or zero; anything else means that somebody else wrote to it."""
    guest.run(ALLOCATE, (4, 0))
    guest.run(FREE, (4, 0))
    guest.ram[0, 0] = 99
    guest.run(ALLOCATE, (4, 0))
    assert guest.stamp_errors == 1


def test_the_first_touch_of_a_discarded_page_is_a_refault(guest: Guest) -> None:
    """Pages touched before that read as zero were discarded; the very first touch of a page is no refault."""
    guest.run(ALLOCATE, (4, 0))
    assert guest.refaulted_pages == 0
    guest.run(FREE, (4, 0))
    guest.ram[0:3, 0] = 0
    guest.run(ALLOCATE, (4, 0))
    assert guest.slots[0] == 0
    assert (guest.refaulted_pages, guest.stamp_errors) == (3, 0)


def test_what_is_reported_again_untouched_is_counted(guest: Guest) -> None:
    """A page counts when it is reported twice with no stamp between, and its stamps are right all the same."""
    guest.run(ALLOCATE, (0, 0), (3, 1))
    single, block = int(guest.slots[0]), int(guest.slots[1])
    guest.run(FREE, (0, 0), (3, 1))
    zone = guest.zone
    reported = batch_of((single, 0), (block, 3))
    note_reported(zone.words, zone.pages, reported)
    assert zone.words[REPEATED_PAGES] == 0
    guest.run(ALLOCATE, (0, 0))
    assert guest.slots[0] == single
    guest.run(FREE, (0, 0))
    note_reported(zone.words, zone.pages, reported)
    assert zone.words[REPEATED_PAGES] == 8
    assert guest.stamp_errors == 0


def test_a_failed_allocation_stops_at_its_operation(guest: Guest) -> None:
    """NO_MEMORY leaves the cursor on the operation that failed, so that it can be tried again."""
    assert guest.run(ALLOCATE, (7, 0), (7, 1), (0, 2)) == NO_MEMORY
    assert guest.cursor[0] == 2
    assert guest.slots[2] == -1


def test_freeing_a_block_with_another_order_is_noticed(guest: Guest) -> None:
    """BAD_FREE answers a workload that frees what it does not hold."""
    guest.run(ALLOCATE, (1, 0))
    assert guest.run(FREE, (0, 0)) == BAD_FREE


def test_a_slot_that_another_vcpu_is_late_with_is_left_alone(guest: Guest) -> None:
    """What is not there yet is not freed, and what is still there is not lost."""
    assert guest.run(FREE, (0, 0)) == SLOT_WANTED
    guest.run(ALLOCATE, (0, 0))
    held = guest.slots[0]
    assert guest.run(ALLOCATE, (0, 0)) == SLOT_WANTED
    assert guest.slots[0] == held
    assert guest.cursor[0] == 0


def test_a_stopped_vcpu_runs_no_further_operation(guest: Guest) -> None:
    """With STOP set one operation is finished and no other begun."""
    guest.zone.words[BASE + STOP] = 1
    assert guest.run(ALLOCATE, (0, 0), (0, 1)) == STOPPED
    assert guest.cursor[0] == 1


def test_a_free_that_wants_the_worker_comes_back_at_once(guest: Guest) -> None:
    """A free at or above the reporting order makes the vCPU return, so that somebody wakes the worker."""
    guest.run(ALLOCATE, (5, 0), (5, 1))
    guest.zone.words[REPORTING_ORDER], guest.zone.words[WAKE_BLOCKS] = 5, 1
    assert guest.run(FREE, (5, 0), (5, 1)) == WORKER_WANTED
    assert guest.cursor[0] == 1


ORDERS_CHURNED = 0x9321
"""Four orders, of four bits each."""


@kernel
def churn(words: npt.NDArray[np.int64], pages: npt.NDArray[np.uint32], vcpu: int, rounds: int) -> int:
    """Allocate and free blocks of some orders; how many of the operations failed."""
    failed = 0
    for index in range(rounds):
        order = ORDERS_CHURNED >> 4 * (index % 4) & 15
        pfn = allocate(words, pages, vcpu, order)
        if pfn < 0 or free(words, pages, vcpu, pfn, order) < 0:
            failed += 1
    return failed


def _churn_on_both(zone: Zone, meanwhile: Callable[[], object] | None = None) -> None:
    """Two threads, a vCPU each, allocate and free in turns, and none of it fails; all is compiled before."""
    rounds = 300 if JIT_DISABLED else 400_000
    churn(zone.words, zone.pages, 0, 3)
    if meanwhile is not None:
        meanwhile()
    failures: list[int] = []
    threads = [
        threading.Thread(target=lambda vcpu=vcpu: failures.append(churn(zone.words, zone.pages, vcpu, rounds)))
        for vcpu in range(2)
    ]
    for thread in threads:
        thread.start()
    while meanwhile is not None and any(thread.is_alive() for thread in threads):
        meanwhile()
    for thread in threads:
        thread.join()
    assert failures == [0, 0]


def test_two_vcpus_really_contend_for_the_zone_lock() -> None:
    """Two threads hammer one zone: nothing is lost, every count is right, and the lock was waited for."""
    zone = Zone(1 << 14, vcpus=2, watermarks=Watermarks(0, 0, 0), pcp_orders=(0,))
    for _ in range(5):  # on a busy machine one may be over before the other begins
        _churn_on_both(zone)
        if JIT_DISABLED or zone.words[LOCK_CONTENDED] > 0:
            break
    zone.check()
    assert zone.words[FREE_PAGES] == 1 << 14
    if not JIT_DISABLED:
        assert zone.words[LOCK_CONTENDED] > 0


def test_lists_may_be_drained_while_they_are_used() -> None:
    """Of blocks that two threads take from their lists, while a third drains both again and again, none is lost."""
    zone = Zone(1 << 14, vcpus=2, watermarks=Watermarks(0, 0, 0))
    _churn_on_both(zone, lambda: pcp_drain_all(zone.words, zone.pages))
    pcp_drain_all(zone.words, zone.pages)
    zone.check()
    assert zone.words[FREE_PAGES] == 1 << 14
