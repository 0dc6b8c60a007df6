"""`shared` on real memory: vCPUs churn while a host takes frames, rightly and wrongly; and a host that is stopped."""

import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from pagetide import linux
from pagetide.atomics import atomic_compare_exchange
from pagetide.guest.allocator.operation import ALLOCATE, FREE, OPERATION
from pagetide.guest.allocator.pcp import pcp_drain
from pagetide.guest.allocator.zone import Watermarks, Zone
from pagetide.guest.allocator.zone_layout import (
    FALSE_OOMS,
    FREE_PAGES,
    REFAULTED_PAGES,
    STAMP_ERRORS,
    WAITS_HOST,
    vcpu_base,
)
from pagetide.guest.in_flight import TakenByHost
from pagetide.guest.reporting.designs.shared import Shared
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.vcpu import DONE, NO_MEMORY, NOT_HAD, run_operations
from pagetide.host.device.taking import FrameTaker, begin_batch, end_batch
from pagetide.host.memory.ledger import VERIFIED_BYTES, Ledger
from pagetide.jit import JIT_DISABLED, kernel
from pagetide.machine.config import RunConfig
from pagetide.machine.live.guest_run import GuestRun
from pagetide.machine.live.guest_worker import GuestWorker
from pagetide.machine.live.machine import LiveMachine
from pagetide.memory import frame_table
from pagetide.memory.frame_table import FRAME_ORDER, FRAMES, INSTALLS, STATE_MASK, TAKEN, TAKING
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.region_map import Region, RegionMap
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES
from tests.machine.linux.eat_and_free import eat_and_free
from tests.machine.watcher import Watcher

pytestmark = pytest.mark.slow

MIB = 1 << 20
RAM_BYTES = 64 * MIB
VCPUS = 2
SLOTS = 24
OPERATIONS = 300 if JIT_DISABLED else 20_000


def churn(seed: int) -> npt.NDArray[np.void]:
    """Blocks of all orders that come and go in random slots; all are freed at the end."""
    rng = np.random.default_rng(seed)
    held: dict[int, int] = {}
    done = []
    for slot in rng.integers(0, SLOTS, OPERATIONS):
        order = held.pop(int(slot), -1)
        if order >= 0:
            done.append((FREE, order, slot))
        else:
            held[int(slot)] = order = int(rng.choice([0, 3, 8, 9, 10]))
            done.append((ALLOCATE, order, slot))
    done += [(FREE, order, slot) for slot, order in held.items()]
    return np.array(done, OPERATION)


class Churning:
    """A guest whose vCPUs churn in threads of their own."""

    def __init__(self, ram: GuestRam) -> None:
        self.ram = ram
        self.zone = Zone(RAM_BYTES // PAGE_SIZE_BYTES, vcpus=VCPUS, watermarks=Watermarks(0, 0, 0))
        self.frames = RAM_BYTES >> (PAGE_SHIFT + FRAME_ORDER)
        self.table = self.zone.frame_table
        self.stopping = False
        Shared(self.zone, ReportingSettings()).start(0.0)

    def total(self, word: int) -> int:
        return sum(int(self.zone.words[vcpu_base(vcpu) + word]) for vcpu in range(VCPUS))

    def _run(self, vcpu: int) -> None:
        operations, slots, cursor = churn(vcpu), np.full(SLOTS, -1, np.int64), np.zeros(1, np.int64)
        words, pages = self.zone.words, self.zone.pages
        while not self.stopping:
            end = min(len(operations), int(cursor[0]) + 100)
            outcome = run_operations(words, pages, self.ram.address, vcpu, operations, slots, cursor, end)
            assert outcome in (DONE, NO_MEMORY)
            if outcome == NO_MEMORY:  # the other vCPU has it, or the host
                slots[operations[cursor[0]]["slot"]] = NOT_HAD
                cursor[0] += 1
            elif end == len(operations):
                break
        pcp_drain(words, pages, vcpu)

    def against(self, take: Callable[[], None]) -> None:
        """Churn to the end, or until `stopping`, while a host does this again and again."""
        threads = [threading.Thread(target=self._run, args=(vcpu,)) for vcpu in range(VCPUS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            take()
        for thread in threads:
            thread.join()


def taker_of(guest: Churning, ledger: Ledger) -> FrameTaker:
    """The host as it is."""
    regions = RegionMap([Region(0, RAM_BYTES, guest.ram.fd, 0, guest.ram.address)])
    return FrameTaker(guest.table, guest.frames, regions, ledger, capacity=4)


def take_all(taker: FrameTaker) -> None:
    """One pass."""
    while taker.take() is not None:
        pass


def test_nothing_in_use_is_discarded_while_vcpus_churn() -> None:
    """Two vCPUs allocate and free blocks of all orders while the host takes what it can: no stamp is ever wrong."""
    with GuestRam.create(RAM_BYTES, "memfd") as ram:
        guest, ledger = Churning(ram), Ledger()
        taker = taker_of(guest, ledger)
        for _ in range(5):  # on a busy machine the host may not get a chance in the first
            guest.against(lambda: take_all(taker))
            if guest.total(REFAULTED_PAGES) > 0 and guest.table[INSTALLS] > 10:
                break
        assert guest.total(STAMP_ERRORS) == 0
        assert guest.total(REFAULTED_PAGES) > 0, "what was taken was used again"
        assert guest.table[INSTALLS] > 10
        assert guest.zone.words[FREE_PAGES] == RAM_BYTES // PAGE_SIZE_BYTES
        take_all(taker)
        guest.zone.check()
        assert (guest.table[FRAMES : FRAMES + guest.frames] & STATE_MASK == TAKEN).all()
        account = ledger.snapshot()
        assert account["reported_bytes"] == account["verified_bytes"] == ledger.words[VERIFIED_BYTES]


@kernel
def compare_exchange(table: npt.NDArray[np.int64], index: int, old: int, new: int) -> int:
    """`atomic_compare_exchange`, callable from Python."""
    return atomic_compare_exchange(table, index, old, new)


def discards_first(guest: Churning) -> None:
    """A wrong host: it discards what looks free and only then takes it."""
    for index in range(FRAMES, FRAMES + guest.frames):
        old = int(guest.table[index])
        if old & STATE_MASK == frame_table.FREE:
            linux.punch_hole(guest.ram.fd, (index - FRAMES) * 2 * MIB, 2 * MIB)
            compare_exchange(guest.table, index, old, TAKEN)


def does_not_compare(guest: Churning) -> None:
    """A wrong host: it writes TAKING over whatever the word has become since it looked."""
    seen = guest.table[FRAMES : FRAMES + guest.frames] & STATE_MASK == frame_table.FREE
    for frame in np.flatnonzero(seen):
        guest.table[FRAMES + frame] = TAKING
        linux.punch_hole(guest.ram.fd, int(frame) * 2 * MIB, 2 * MIB)
        guest.table[FRAMES + frame] = TAKEN


@pytest.mark.parametrize("wrong", [discards_first, does_not_compare])
def test_a_wrong_host_is_caught(wrong: Callable[[Churning], None]) -> None:
    """The stress test can fail: without the order of things, or without comparing, stamps are wrong."""
    give_up_s = time.monotonic() + 60
    errors = 0
    with GuestRam.create(RAM_BYTES, "memfd") as ram:
        while not errors and time.monotonic() < give_up_s:
            guest = Churning(ram)
            ram.words[:: PAGE_SIZE_BYTES // 8] = 0

            def take(guest: Churning = guest) -> None:
                wrong(guest)
                guest.stopping = guest.total(STAMP_ERRORS) > 0

            guest.against(take)
            errors = guest.total(STAMP_ERRORS)
    assert errors > 0


@pytest.mark.parametrize("waits", [True, False])
def test_an_allocation_that_only_the_host_could_serve(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that is free TAKING it waits for the batch, or fails falsely and is counted."""
    with GuestRam.create(16 * MIB, "memfd") as ram:
        zone = Zone(4096, watermarks=Watermarks(0, 0, 0))
        design = Shared(zone, ReportingSettings())
        design.start(0.0)
        picked, count = np.zeros(8, np.int64), np.zeros(1, np.int64)
        begin_batch(zone.frame_table, 0, 8, picked, count)
        waiting = threading.Event()
        with GuestWorker(design, None, None) as worker:
            wait_until = worker.wait_until

            def noting(condition: Callable[[], bool], *, look_again_s: float) -> None:
                waiting.set()
                wait_until(condition, look_again_s=look_again_s)

            monkeypatch.setattr(worker, "wait_until", noting)
            in_flight = TakenByHost(zone)
            assert in_flight.pages_out == 4096
            stream = eat_and_free(2, 10, settle=False)
            run = GuestRun(zone, ram.address, stream, 1, worker, lambda _: None, waits_before_oom=waits,
                           in_flight=in_flight)  # fmt: skip
            eater = threading.Thread(target=run.run, daemon=True)
            eater.start()
            if waits:
                assert waiting.wait(10)
                end_batch(zone.frame_table, picked, int(count[0]))
            eater.join(10)
            assert not eater.is_alive()
        assert zone.words[FALSE_OOMS] == (0 if waits else 2)
        assert zone.words[vcpu_base(0) + WAITS_HOST] == (1 if waits else 0)
        assert zone.words[FREE_PAGES] == 4096
        assert not in_flight.at_rest
        zone.check()


def test_a_stopped_host_keeps_no_vcpu_waiting() -> None:
    """The host is stopped while the guest frees, eats and frees again: nobody waits, and later everything is taken."""

    def stop() -> None:
        host = next(p for p in psutil.Process().children() if "pagetide.machine.live.host_process" in p.cmdline())
        host.suspend()
        threading.Timer(1.5, host.resume).start()

    config = RunConfig(design="shared", ram_bytes=256 * MIB, bursts=1, hold_s=0.5, delay_s=0.01, capacity=4)
    result = LiveMachine(config).run(Watcher(stop))
    assert result.outcome == "complete"
    assert result.duration_s > 1.0
    assert result.stamp_errors == 0
    assert result.vcpu_waits_host == result.false_ooms == 0
    assert result.isolated_blocks_max is not None
    assert 1 <= result.isolated_blocks_max <= 4
    assert result.bursts[0].returned_bytes >= 0.98 * result.bursts[0].eaten_bytes
    assert result.verified_bytes
    assert result.verified_bytes == result.checked_bytes == result.discarded_bytes == result.reported_bytes
    assert result.samples.reported_bytes[-1] == 256 * MIB
