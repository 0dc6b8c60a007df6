"""A vCPU's loop without a machine: when it runs, drains and sleeps, and what it says that it waits for."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import (
    FALSE_OOMS,
    ISOLATED_PAGES,
    PCP_COUNT,
    WAIT_HOST_NS,
    WAIT_HOST_NS_MAX,
    WAITS_HOST,
    vcpu_base,
)
from pagetide.guest.in_flight import Isolated
from pagetide.guest.reporting.designs.off import Off
from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.guest.vcpu import (
    ACT_DRAIN,
    ACT_END,
    ACT_RUN,
    ACT_SLEEP,
    DONE,
    IDLE_S,
    NO_MEMORY,
    next_act,
    note_false_oom,
    note_wait,
)
from pagetide.guest.vcpu_loop import OutOfMemoryError, Surroundings, VcpuLoop
from pagetide.guest.worker import Reporting, Wait


class Quiet(Reporting):
    """Nobody is woken or told."""

    def ring(self) -> None:
        pass

    def tell(self) -> None:
        pass


class Pages:
    """Operations that allocate a page each and free it at once, at these times; or fail."""

    order = 0

    def __init__(self, zone: Zone, *due_s: float, outcome: int = DONE) -> None:
        self._zone, self._due_s, self._outcome = zone, [*due_s], outcome
        self.ran_s: list[float] = []

    @property
    def left(self) -> int:
        return len(self._due_s)

    @property
    def due_s(self) -> float:
        return self._due_s[0]

    def run_due(self, now_s: float) -> int:
        self.ran_s.append(self._due_s[0])
        if self._outcome == DONE:
            self._due_s.pop(0)
            pfn = self._zone.allocate(0)
            assert pfn is not None
            self._zone.free(pfn, 0)
        return self._outcome

    def give_up(self) -> None:
        self._due_s.pop(0)


class Rig:
    """A vCPU of a small guest; `until` runs its steps up to the next wait."""

    def __init__(self, *due_s: float, waits: bool = True, **settings: Any) -> None:
        self.zone = Zone(4096)
        self.reporting = Quiet(Off(self.zone, ReportingSettings()), None)
        self.operations = Pages(self.zone, *due_s, **settings)
        in_flight = Isolated(self.zone, self.reporting)
        self.loop = VcpuLoop(0, Surroundings(self.zone, self.reporting, in_flight, waits), self.operations)

    def until_wait(self, now_s: float) -> Wait:
        while (wait := self.loop.proceed(now_s)) is Wait.NOTHING:
            pass
        return wait

    @property
    def listed(self) -> int:
        return int(self.zone.words[vcpu_base(0) + PCP_COUNT])


def test_it_runs_what_is_due_and_sleeps_until_the_next() -> None:
    """What is due runs, one after the other; the sleep ends when the next is due, and then it is over."""
    rig = Rig(0.0, 0.0, 0.05)
    assert rig.until_wait(0.0) is Wait.DUE
    assert rig.operations.ran_s == [0.0, 0.0]
    assert rig.loop.until_s == 0.05
    assert rig.until_wait(0.049) is Wait.DUE
    assert rig.until_wait(0.05) is Wait.OVER
    assert rig.operations.ran_s == [0.0, 0.0, 0.05]


def test_who_is_idle_for_long_keeps_no_pages() -> None:
    """A vCPU keeps its per-CPU list for a short while; with nothing to do for IDLE_S, or any more, it gives it back."""
    rig = Rig(0.0, IDLE_S / 2, IDLE_S * 3, IDLE_S * 3)
    assert rig.until_wait(0.0) is Wait.DUE
    assert rig.listed > 0
    assert rig.until_wait(IDLE_S / 2) is Wait.DUE
    assert rig.listed == 0
    assert rig.until_wait(IDLE_S * 3) is Wait.OVER
    assert rig.listed == 0


def test_a_failed_allocation_waits_for_what_is_out() -> None:
    """While a batch is out it waits, until one more is over than when it began; with none out it is an error."""
    rig = Rig(0.0, outcome=NO_MEMORY)
    rig.reporting.batches_begun = 1
    assert rig.until_wait(0.0) is Wait.MEMORY
    assert not rig.loop.is_back
    rig.reporting.batches_done = 1
    assert rig.loop.is_back
    with pytest.raises(OutOfMemoryError):
        rig.until_wait(0.0)


@pytest.mark.parametrize(("pages_out", "counted"), [(0, 0), (1, 1)])
def test_where_nobody_waits_a_false_oom_is_counted(pages_out: int, counted: int) -> None:
    """With enough out for the block it goes on without, and is counted; with less it waits, which tells nothing."""
    rig = Rig(0.0, waits=False, outcome=NO_MEMORY)
    rig.reporting.batches_begun = 1
    rig.zone.words[ISOLATED_PAGES] = pages_out
    assert rig.until_wait(0.0) is (Wait.OVER if counted else Wait.MEMORY)
    assert rig.zone.words[FALSE_OOMS] == counted
    assert rig.operations.left == 1 - counted


@pytest.mark.parametrize(
    ("left", "due_in_s", "drained", "act"),
    [
        (1, 0.0, False, ACT_RUN),
        (1, -1.0, True, ACT_RUN),
        (1, IDLE_S, False, ACT_DRAIN),
        (1, IDLE_S, True, ACT_SLEEP),
        (1, IDLE_S / 2, False, ACT_SLEEP),
        (0, 0.0, False, ACT_DRAIN),
        (0, 0.0, True, ACT_END),
    ],
)
def test_what_a_vcpu_does_next(left: int, due_in_s: float, drained: bool, act: int) -> None:
    """One rule for seconds and for picoseconds, in Python and within a kernel."""
    assert next_act(left, due_in_s, IDLE_S, drained) == act
    assert next_act(left, round(due_in_s * 10**12), round(IDLE_S * 10**12), int(drained)) == act


def test_waits_for_the_host_are_added_up() -> None:
    """How many, how long in all, and the longest; of one vCPU."""
    words, base = Zone(4096, vcpus=2).words, vcpu_base(1)
    for waited_ns in (5, 7, 3):
        note_wait(words, 1, waited_ns)
    assert [int(words[base + word]) for word in (WAITS_HOST, WAIT_HOST_NS, WAIT_HOST_NS_MAX)] == [3, 15, 7]
    assert words[vcpu_base(0) + WAITS_HOST] == 0


def test_false_ooms_of_several_threads_are_all_counted() -> None:
    """VCPUs that count at once lose none."""
    words = Zone(4096).words
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: [note_false_oom(words) for _ in range(1000)], range(4)))
    assert words[FALSE_OOMS] == 4000
