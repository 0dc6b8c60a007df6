"""The kernel in which simulated vCPUs run: whose turn it is, when an operation may begin, and what it takes."""

import numpy as np
import pytest

from pagetide.guest.allocator.operation import ALLOCATE, FREE, OPERATION
from pagetide.guest.allocator.pcp import pcp_drain
from pagetide.guest.allocator.request import take_wake
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    FREE_PAGES,
    LOCK_CONTENDED,
    LOCK_WAIT_NS,
    PCP_COUNT,
    RECORD_HINT_ARRAYS,
    REPORTING_ORDER,
    STAMP_ERRORS,
    WAKE_BLOCKS,
    vcpu_base,
)
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.reporting.switch import switch_on
from pagetide.guest.vcpu import BAD_FREE, DONE, HOST_WANTED, NO_MEMORY, WORKER_WANTED
from pagetide.host.memory.punch import punch_hole
from pagetide.machine.simulated.loop import NEVER_PS
from pagetide.machine.simulated.vcpu import TIME_UP, run_vcpus
from pagetide.machine.simulated.vcpu_layout import (
    BLOCK_PS,
    BUSY_PS,
    CHECK_PS,
    CLOCK_PS,
    COSTS,
    CURSOR,
    END,
    MOVED_PAGE_PS,
    NEXT_PS,
    ORDER0_PS,
    SHARED_WORDS,
    SMALL_FAULT_PS,
    STAMP_PS,
    VCPU_COLUMNS,
    WHO,
)
from pagetide.memory.metadata import MetadataFile
from pagetide.units import PAGE_SIZE_BYTES

PAGES = 4096
SLOTS_EACH = 8


class Rig:
    """Some vCPUs on a small zone with lists of single pages, each with its operations as (kind, order, slot, due)."""

    def __init__(self, *scripts: list[tuple[int, int, int, int]]) -> None:
        self.zone = Zone(PAGES, vcpus=len(scripts), watermarks=Watermarks(0, 0, 0), pcp_orders=(0,))
        self.memory = MetadataFile(PAGES * PAGE_SIZE_BYTES)
        self.operations = np.array(
            [
                (kind, order, slot + own * SLOTS_EACH)
                for own, script in enumerate(scripts)
                for kind, order, slot, _ in script
            ],
            OPERATION,
        )
        self.due_ps = np.array([step[3] for script in scripts for step in script], np.int64)
        ends = np.cumsum([len(script) for script in scripts])
        self.rows = np.zeros((len(scripts), VCPU_COLUMNS), np.int64)
        self.rows[:, CURSOR] = ends - [len(script) for script in scripts]
        self.rows[:, END] = ends
        self.slots = np.full(len(scripts) * SLOTS_EACH, -1, np.int64)
        self.costs = np.zeros(COSTS, np.int64)
        self.costs[[ORDER0_PS, MOVED_PAGE_PS, BLOCK_PS]] = 10_000, 1000, 100_000
        self.costs[[STAMP_PS, CHECK_PS, SMALL_FAULT_PS]] = 3, 5, 7000
        self.shared = np.zeros(SHARED_WORDS, np.int64)

    def run(self, until_ps: int = NEVER_PS) -> int:
        """Run up to this time, or up to the first stop; why it stopped."""
        zone, memory = self.zone, self.memory
        return int(
            run_vcpus(
                zone.words, zone.pages, memory.address, self.rows, self.operations, self.due_ps, self.slots,
                self.costs, self.shared, until_ps,
            )
        )  # fmt: skip


def test_an_operation_takes_what_it_costs() -> None:
    """The allocator, a fault for each fresh page, a stamp for each page, and a check of each before it is freed."""
    rig = Rig([(ALLOCATE, 3, 0, 0), (FREE, 3, 0, 0), (ALLOCATE, 3, 0, 0)])
    assert rig.run() == DONE
    allocated_ps, freed_ps = 100_000 + 8 * 3, 100_000 + 8 * 5
    assert rig.rows[0, CLOCK_PS] == rig.shared[BUSY_PS] == 2 * allocated_ps + 8 * 7000 + freed_ps


def test_order_0_pays_for_the_pages_that_its_list_moves() -> None:
    """A refill is paid for by the page that needs it, and the drain when the vCPU is done."""
    rig = Rig([(ALLOCATE, 0, slot, 0) for slot in range(2)])
    assert rig.run() == DONE
    refilled, left = 63, 63 - 2
    assert rig.rows[0, CLOCK_PS] == 2 * (10_000 + 3 + 7000) + (refilled + left) * 1000
    assert rig.shared[BUSY_PS] == rig.rows[0, CLOCK_PS]
    assert rig.zone.words[vcpu_base(0) + PCP_COUNT] == 0


def test_nothing_begins_before_its_time() -> None:
    """An operation waits for its due time and for the event before it, and does not count as work meanwhile."""
    rig = Rig([(ALLOCATE, 1, 0, 0), (FREE, 1, 0, 10**9)])
    assert rig.run(10**9) == TIME_UP
    assert rig.slots[0] >= 0
    assert rig.rows[0, CURSOR] == 1
    assert rig.run(10**9 + 1) == DONE
    assert rig.rows[0, CLOCK_PS] == 10**9 + 100_000 + 2 * 5
    assert rig.shared[BUSY_PS] < 10**6


def test_vcpus_take_turns_and_wait_for_the_zone_lock() -> None:
    """Of two that begin at once the second waits for as long as the first holds the lock, and they interleave."""
    rig = Rig(*[[(ALLOCATE, 2, slot, 0) for slot in range(3)] for _ in range(2)])
    assert rig.run() == DONE
    assert rig.run() == DONE
    blocks = rig.slots[[0, SLOTS_EACH, 1, SLOTS_EACH + 1, 2, SLOTS_EACH + 2]]
    assert (np.diff(blocks) == 4).all()
    assert rig.zone.words[LOCK_CONTENDED] >= 1
    assert rig.zone.words[LOCK_WAIT_NS] >= 100


def test_who_frees_or_fills_anothers_slot_waits_until_it_can() -> None:
    """A vCPU that is due before the late one that it depends on goes on right behind it, and works no longer for it."""
    theirs = 1 - SLOTS_EACH  # slot 1 of the vCPU before
    rig = Rig(
        [(ALLOCATE, 9, 0, 0), (ALLOCATE, 2, 1, 0), (ALLOCATE, 2, 1, 0)],
        [(FREE, 2, theirs, 0), (FREE, 2, theirs, 0)],
    )
    assert [rig.run(), rig.run()] == [DONE, DONE]
    assert (rig.slots[1:] == -1).all()
    assert rig.zone.words[FREE_PAGES] == PAGES - 512
    first_ps = 100_000 + 512 * 7003
    assert rig.rows[1, CLOCK_PS] >= first_ps + 4 * 100_000
    assert rig.shared[BUSY_PS] < first_ps + 10 * 100_000


def test_an_idle_vcpu_without_pages_does_not_wait_for_the_lock() -> None:
    """Who has nothing to drain does not ask for the lock that another took long after it fell idle."""
    rig = Rig(*[[(ALLOCATE, 2, 0, 0), (FREE, 2, 0, 10**12 + vcpu)] for vcpu in range(2)])
    while TIME_UP != rig.run(10**12 - 1) != DONE:
        pass
    before_ns = int(rig.zone.words[LOCK_WAIT_NS])
    while (rig.rows[:, CURSOR] <= rig.rows[:, END]).any():
        assert rig.run() == DONE
    assert rig.zone.words[LOCK_WAIT_NS] - before_ns <= 100


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([(ALLOCATE, 10, slot, 0) for slot in range(5)], NO_MEMORY),
        ([(ALLOCATE, 1, 0, 0), (FREE, 2, 0, 0)], BAD_FREE),
    ],
)
def test_it_stops_where_somebody_must_act(script: list[tuple[int, int, int, int]], outcome: int) -> None:
    """An allocation that fails and a free of what is not there stop the vCPU at that operation, by name."""
    rig = Rig([(ALLOCATE, 0, 7, 10**15)], script)
    assert rig.run(10**12) == outcome
    assert rig.shared[WHO] == 1
    assert rig.rows[1, CURSOR] == len(script)


def test_a_free_that_asks_for_the_worker_stops_its_vcpu() -> None:
    """When the free path raises WAKE the vCPU stops behind that operation."""
    rig = Rig([(ALLOCATE, 9, 0, 0), (FREE, 9, 0, 0), (ALLOCATE, 9, 0, 0)])
    rig.zone.words[REPORTING_ORDER], rig.zone.words[WAKE_BLOCKS] = 9, 1
    assert rig.run() == WORKER_WANTED
    assert rig.rows[0, CURSOR] == 2


@pytest.mark.parametrize("rests", [False, True])
def test_hints_of_an_idle_vcpus_drain_are_reported_before_it_rests(rests: bool) -> None:
    """Pages that merge as its list is drained fill a batch of `sync`: the vCPU stops for the host, and goes on then."""
    later = [(ALLOCATE, 0, 1, 10**12)] if rests else []
    rig = Rig([(ALLOCATE, 0, 0, 0), (FREE, 0, 0, 0), *later])
    switch_on(rig.zone, ReportingSettings(order=10), recording=RECORD_HINT_ARRAYS, sync_hints=1)
    take_wake(rig.zone.words)
    assert rig.run(10**12) == HOST_WANTED
    assert rig.rows[0, CURSOR] == 2
    assert rig.run(10**12) == (TIME_UP if rests else DONE)


def test_hints_of_a_list_that_another_drained_are_reported_before_it_rests() -> None:
    """Whoever drained an idle vCPU's list, what merged into its batch of `sync` is reported by that vCPU."""
    rig = Rig([(ALLOCATE, 0, 0, 0), (FREE, 0, 0, 0), (ALLOCATE, 0, 1, 10**12)])
    switch_on(rig.zone, ReportingSettings(order=10), recording=RECORD_HINT_ARRAYS, sync_hints=1)
    take_wake(rig.zone.words)
    while rig.rows[0, CURSOR] < 2:
        assert rig.run(int(rig.rows[0, CLOCK_PS]) + 1) == TIME_UP
    pcp_drain(rig.zone.words, rig.zone.pages, 0)
    assert rig.run(10**12) == HOST_WANTED
    assert rig.run(10**12) == TIME_UP


def test_it_says_when_it_goes_on() -> None:
    """Whoever lets it run need not ask again before that."""
    rig = Rig([(ALLOCATE, 1, 0, 0), (FREE, 1, 0, 10**9)])
    assert rig.run(10**6) == TIME_UP
    assert rig.shared[NEXT_PS] == 10**9
    assert rig.run(10**9 + 1) == DONE
    assert rig.run() == TIME_UP
    assert rig.shared[NEXT_PS] == NEVER_PS


def test_memory_in_use_that_is_discarded_is_a_wrong_stamp() -> None:
    """A hole punched into a block in use is noticed when it is freed: the check can fail."""
    rig = Rig([(ALLOCATE, 4, 0, 0), (FREE, 4, 0, 10**9)])
    assert rig.run(10**9) == TIME_UP
    punch_hole(rig.memory.fd, (int(rig.slots[0]) + 1) * PAGE_SIZE_BYTES, 3 * PAGE_SIZE_BYTES)
    assert rig.run() == DONE
    assert rig.zone.words[vcpu_base(0) + STAMP_ERRORS] == 3
