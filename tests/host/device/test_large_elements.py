"""Elements larger than a turn: served in pieces, given back once, and right whatever comes in between."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device import balloon as devices
from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.queues.place import QueueLostError
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.inflight import InflightRegion
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, USER, GuestRing

FEATURES = int(devices.FEATURES & ~devices.OPTIONAL_FEATURES | Feature.REPORTING)
REPORTING = queues(FEATURES).index(Queue.REPORTING)
PAGES = 128
BLOCKS = [(RING_PAGES + 1 + 2 * n, 1) for n in range(10)]
"""Ten pages that do not adjoin, so ten calls."""


class Rig:
    """A guest, and a device whose turns end with three discarding calls."""

    def __init__(self, punches_max: int = 3, inflight: InflightRegion | None = None) -> None:
        self.guest = GuestRing(PAGES, FEATURES)
        self.memory = GuestMemory()
        self.memory.add(self.guest.region, os.dup(self.guest.ram.fd))
        self.device = BalloonDevice(self.memory, Ledger(), turn_punches_max=punches_max)
        self.inflight = inflight
        self.start(0)

    def start(self, base: int) -> None:
        """Start the queue."""
        self.device.start_queue(REPORTING, self.guest.queue_place, base, FEATURES, self.inflight)

    def put(self, *elements: Sequence[tuple[int, int]]) -> None:
        """Make elements available."""
        for blocks in elements:
            self.guest.add(blocks)
        self.guest.driver.publish()

    def turn(self, budget: int = 16) -> tuple[int, int, bool]:
        """One turn: how many elements came back, how many the turn says so of, and whether there is more."""
        turn = self.device.process(REPORTING, budget)
        return len(self.guest.driver.take_used()), turn.reports, turn.more

    def word(self, name: str) -> int:
        """A word of the ledger."""
        return self.device.ledger.snapshot()[name]

    def gone(self) -> set[int]:
        """The pages that the host does not hold."""
        return set(range(PAGES)) - self.guest.resident_pages()

    def balances(self) -> bool:
        """Whether all that was reported so far is accounted for."""
        skipped = sum(self.device.ledger.skipped_bytes().values())
        return self.word("reported_bytes") == self.word("discarded_bytes") + skipped

    def finish(self) -> None:
        """Take turns until there is no more to do."""
        while self.turn()[2]:
            pass

    def close(self) -> None:
        """Give everything back."""
        self.memory.close()
        self.guest.ram.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    """One that is closed afterwards."""
    with closing(Rig()) as rig:
        yield rig


def first_pages(blocks: Sequence[tuple[int, int]]) -> set[int]:
    """The pages of blocks of one page."""
    return {page for page, _ in blocks}


def test_a_turn_ends_within_an_element_and_gives_it_back_when_all_is_done(rig: Rig) -> None:
    """Ten calls at three a turn: the driver sees the element after the fourth turn, and the ledger each byte once."""
    rig.put(BLOCKS)
    for calls in (3, 6, 9):
        assert rig.turn() == (0, 0, True)
        assert rig.word("discarded_bytes") == rig.word("verified_bytes") == calls * PAGE
        assert len(rig.gone()) == calls
        assert rig.balances()
    assert rig.turn() == (1, 1, False)
    assert rig.gone() == first_pages(BLOCKS)
    snapshot = rig.device.ledger.snapshot()
    assert [snapshot[name] for name in ("reports", "blocks", "punches")] == [1, 10, 10]
    assert snapshot["reported_bytes"] == snapshot["discarded_bytes"] == snapshot["verified_bytes"] == 10 * PAGE


def test_the_parts_of_an_element_are_not_in_vain(rig: Rig) -> None:
    """What a turn discards of an element that an earlier one began is rightly named; so is what it serves again."""
    rig.put(BLOCKS)
    assert rig.device.process(REPORTING, 16).in_vain == 0
    assert rig.device.process(REPORTING, 16).in_vain == 0
    base = rig.device.queues.stop(REPORTING)
    assert base == 0
    rig.start(base)
    assert [rig.device.process(REPORTING, 16).in_vain for _ in range(4)] == [0] * 4


def test_a_paused_guest_keeps_the_rest_for_later(rig: Rig) -> None:
    """Pausing within an element: nothing more is discarded until it goes on, and nothing is lost."""
    rig.put(BLOCKS)
    rig.turn()
    rig.device.paused = True
    assert rig.turn() == (0, 0, False)
    assert len(rig.gone()) == 3
    rig.device.paused = False
    rig.finish()
    assert rig.gone() == first_pages(BLOCKS)
    assert rig.word("discarded_bytes") == rig.word("reported_bytes") == 10 * PAGE


def test_what_is_inhibited_within_an_element_is_left_alone_from_then_on(rig: Rig) -> None:
    """The rest is acknowledged and counted as inhibited."""
    rig.put(BLOCKS)
    rig.turn()
    rig.device.inhibited = True
    assert rig.turn() == (1, 1, False)
    assert len(rig.gone()) == 3
    assert rig.word("skipped_inhibited_bytes") == 7 * PAGE
    assert rig.balances()


def test_finishing_serves_the_element_under_way_and_nothing_that_comes_later(rig: Rig) -> None:
    """SIGTERM within an element: it is given back, whole, and so is what was behind it; a later one stays."""
    later = [(60, 1)]
    rig.put(BLOCKS, [(50, 1)])
    rig.turn()
    rig.device.queues.finish()
    rig.put(later)
    answered = 0
    for _ in range(10):
        answered += rig.turn()[0]
    assert answered == 2
    assert rig.gone() == first_pages(BLOCKS) | {50}


@pytest.mark.parametrize("inhibited", [False, True])
def test_a_queue_stopped_within_an_element_begins_with_it_again(rig: Rig, inhibited: bool) -> None:
    """Its index is the one to go on from, all of it is served again, and accounted for once."""
    rig.put([(49, 1)], BLOCKS, [(50, 1)])
    assert rig.turn() == (1, 1, True)  # the first, and two pages of the second
    base = rig.device.queues.stop(REPORTING)
    assert base == 1
    rig.guest.refill()
    rig.start(base)
    rig.device.inhibited = inhibited
    answered = 0
    while True:
        back, _, more = rig.turn()
        answered += back
        if not more:
            break
    assert answered == 2
    assert rig.balances()
    assert (rig.word("reports"), rig.word("blocks"), rig.word("reported_bytes")) == (3, 12, 12 * PAGE)
    if inhibited:
        assert rig.word("discarded_bytes") == 3 * PAGE
        assert rig.word("skipped_inhibited_bytes") == 9 * PAGE
    else:
        assert rig.gone() == first_pages(BLOCKS) | {50}
        assert rig.word("discarded_bytes") == 12 * PAGE


def test_a_queue_stopped_twice_within_an_element_still_counts_it_once(rig: Rig) -> None:
    """The second time it is stopped before it has come as far as the first time."""
    rig.put(BLOCKS)
    rig.turn(), rig.turn()  # six pages
    for _ in range(2):
        base = rig.device.queues.stop(REPORTING)
        assert base == 0
        rig.start(base)
        rig.turn()
    rig.finish()
    assert rig.word("reported_bytes") == rig.word("discarded_bytes") == 10 * PAGE
    assert rig.word("reports") == 1


def test_a_reset_within_an_element_forgets_it(rig: Rig) -> None:
    """A new driver's first element is its own: accounted for in full, and what was done for the old one stays."""
    rig.put(BLOCKS)
    rig.turn()
    rig.device.queues.stop(REPORTING)
    rig.device.reset()
    rig.guest.reset_driver()
    rig.start(0)
    rig.put([(50, 1), (52, 1)])
    assert rig.turn() == (1, 1, False)
    assert rig.word("reports") == 2
    assert rig.word("discarded_bytes") == rig.word("reported_bytes") == 5 * PAGE
    assert rig.balances()


def test_a_driver_that_begins_anew_without_a_reset_is_served_in_full(rig: Rig) -> None:
    """QEMU tells of no reset: what the old driver's element left behind does not keep the new one's from being gone."""
    rig.put([(49, 1)], BLOCKS)
    rig.turn()
    assert rig.device.queues.stop(REPORTING) == 1
    rig.guest.reset_driver()
    rig.guest.refill()
    rig.start(0)
    rig.put(BLOCKS)
    rig.finish()
    assert rig.gone() == first_pages(BLOCKS)
    assert rig.word("discarded_bytes") == rig.word("reported_bytes") == 13 * PAGE


def test_memory_that_moves_within_an_element_is_found_again(rig: Rig) -> None:
    """The same RAM as two regions, mapped anew: the rest goes where it is now."""
    rig.put(BLOCKS)
    rig.turn()
    half = (RING_PAGES + 8) * PAGE
    regions = [MemoryRegion(GPA, half, USER, 0), MemoryRegion(GPA + half, PAGES * PAGE - half, USER + half, half)]
    rig.memory.replace(regions, [os.dup(rig.guest.ram.fd) for _ in regions])
    rig.device.queues.memory_changed()
    rig.finish()
    assert rig.gone() == first_pages(BLOCKS)
    assert rig.word("discarded_bytes") == 10 * PAGE


def test_memory_that_goes_within_an_element_is_skipped(rig: Rig) -> None:
    """What is no longer there is out of range, what lies behind it is discarded, and the element comes back."""
    rig.put([*BLOCKS[:3], (30, 20), (100, 4)])
    assert rig.turn() == (0, 0, True)
    parts = [(0, 35), (40, PAGES - 40)]
    regions = [MemoryRegion(GPA + at * PAGE, size * PAGE, USER + at * PAGE, at * PAGE) for at, size in parts]
    rig.memory.replace(regions, [os.dup(rig.guest.ram.fd) for _ in regions])
    rig.device.queues.memory_changed()
    assert rig.turn() == (0, 0, True)
    assert rig.turn() == (1, 1, False)
    assert rig.gone() == first_pages(BLOCKS[:3]) | {*range(30, 35), *range(40, 50), *range(100, 104)}
    assert rig.word("skipped_out_of_range_bytes") == 5 * PAGE
    assert rig.balances()


def test_a_queue_lost_within_an_element_is_served_no_more(rig: Rig) -> None:
    """Without the ring's own memory there is nobody to give it back to."""
    rig.put(BLOCKS)
    rig.turn()
    rig.memory.replace([MemoryRegion(GPA + 64 * PAGE, PAGE, USER + 64 * PAGE, 0)], [os.dup(rig.guest.ram.fd)])
    with pytest.raises(QueueLostError):
        rig.device.queues.memory_changed()
    assert rig.turn()[1:] == (0, False)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(RING_PAGES, PAGES - 9), st.integers(1, 8)), min_size=1, max_size=6), max_size=5
    ),
    st.integers(1, 4),
    st.lists(st.sampled_from(["turn", "turn", "turn", "restart", "pause"]), max_size=12),
)
def test_any_elements_in_turns_of_any_size_are_the_model_s(
    elements: list[list[tuple[int, int]]], punches_max: int, steps: list[str]
) -> None:
    """However turns cut them, and queues are stopped in between: each comes back once, in order, and counts once."""
    rig = Rig(punches_max)
    try:
        if elements:
            rig.put(*elements)
        answered = 0
        for step in steps:
            match step:
                case "turn":
                    answered += rig.turn(2)[0]
                case "restart":
                    base = rig.device.queues.stop(REPORTING)
                    assert base == answered
                    rig.start(base)
                case "pause":
                    rig.device.paused = not rig.device.paused
            assert rig.balances()
        rig.device.paused = False
        more = True
        while more:
            back, _, more = rig.turn()
            answered += back
        pages = [{page for start, size in element for page in range(start, start + size)} for element in elements]
        assert answered == len(elements)
        assert rig.gone() == set().union(*pages)
        assert rig.word("discarded_bytes") == sum(map(len, pages)) * PAGE == rig.word("verified_bytes")
        named = sum(size for element in elements for _, size in element)
        assert rig.word("reported_bytes") == named * PAGE
        assert rig.word("skipped_repeated_bytes") == (named - sum(map(len, pages))) * PAGE
        assert (rig.word("reports"), rig.word("blocks")) == (len(elements), sum(map(len, elements)))
    finally:
        rig.close()
