"""The host takes frames: of the guest's memory only, joined, read back, and accounted for."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from pagetide.host.device.taking import FrameTaker, begin_batch
from pagetide.host.memory.ledger import SKIPPED_OUT_OF_RANGE, Ledger
from pagetide.memory.frame_table import (
    BEGUN,
    ENDED,
    FRAMES,
    FREE,
    IN_USE,
    STATE_MASK,
    TAKEN,
    TAKING,
    TAKING_MAX,
    TAKING_NOW,
    table_words,
)
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.region_map import Region, RegionMap
from pagetide.memory.residency import resident_bytes

MIB = 1 << 20
FRAME_COUNT = 8


class Rig:
    """16 MiB of memory, all touched, its frame table, and what takes from it."""

    def __init__(self, ram: GuestRam) -> None:
        self.ram = ram
        ram.words[::512] = 1
        self.table = np.zeros(table_words(FRAME_COUNT << 9), np.int64)
        self.ledger = Ledger()

    def taker(self, capacity: int = 4, frames: int = FRAME_COUNT, verify_share: float = 1.0) -> FrameTaker:
        region = Region(0, self.ram.size_bytes, self.ram.fd, 0, self.ram.address)
        regions = RegionMap([region])
        return FrameTaker(self.table, frames, regions, self.ledger, capacity=capacity, verify_share=verify_share)

    @property
    def states(self) -> npt.NDArray[np.int64]:
        return self.table[FRAMES : FRAMES + FRAME_COUNT] & STATE_MASK


@pytest.fixture
def rig() -> Iterator[Rig]:
    """The rig, closed afterwards."""
    with GuestRam.create(FRAME_COUNT * 2 * MIB, "memfd") as ram:
        yield Rig(ram)


def test_takes_what_is_free_and_nothing_else(rig: Rig) -> None:
    """Free frames become holes and TAKEN; what is in use keeps its memory."""
    rig.table[FRAMES + np.array([1, 2, 5])] = FREE
    taker = rig.taker()
    assert [taker.take(), taker.take(), taker.take()] == [3, None, None]
    assert rig.states.tolist() == [IN_USE, TAKEN, TAKEN, IN_USE, IN_USE, TAKEN, IN_USE, IN_USE]
    assert resident_bytes(rig.ram.fd) == 10 * MIB
    pages = rig.ram.words[::512].reshape(FRAME_COUNT, 512)
    assert pages.any(axis=1).tolist() == [True, False, False, True, True, False, True, True]
    account = rig.ledger.snapshot()
    assert account["reports"] == 1
    assert account["blocks"] == 3
    assert account["punches"] == 2, "neighbours go in one call"
    assert {account[f"{word}_bytes"] for word in ("reported", "discarded", "checked", "verified")} == {6 * MIB}


def test_a_pass_goes_in_batches_of_the_capacity(rig: Rig) -> None:
    """Never more than that are TAKING, and the table says how many were at most."""
    rig.table[FRAMES : FRAMES + FRAME_COUNT] = FREE
    taker = rig.taker(capacity=3)
    assert [taker.take() for _ in range(4)] == [3, 3, 2, None]
    assert rig.table[TAKING_MAX] == 3
    assert rig.table[TAKING_NOW] == 0
    assert rig.table[BEGUN] == rig.table[ENDED] == 3


def test_only_a_share_is_read_back(rig: Rig) -> None:
    """With a share of a half, every other batch."""
    rig.table[FRAMES : FRAMES + FRAME_COUNT] = FREE
    taker = rig.taker(capacity=2, verify_share=0.5)
    while taker.take() is not None:
        pass
    account = rig.ledger.snapshot()
    assert account["discarded_bytes"] == 16 * MIB
    assert account["checked_bytes"] == account["verified_bytes"] == 8 * MIB


def test_a_frame_outside_the_guests_memory_is_skipped(rig: Rig) -> None:
    """Whatever the table says: nothing is discarded there, and it is counted."""
    rig.table[FRAMES : FRAMES + FRAME_COUNT + 3] = FREE
    taker = rig.taker(frames=FRAME_COUNT + 3, capacity=64)
    assert taker.take() == FRAME_COUNT + 3
    assert rig.ledger.words[SKIPPED_OUT_OF_RANGE] == 6 * MIB
    assert rig.ledger.snapshot()["discarded_bytes"] == 16 * MIB


def test_any_word_in_the_table_is_survived(rig: Rig) -> None:
    """A guest that writes nonsense harms itself: no frame is discarded that was not FREE, and the pass ends."""
    rng = np.random.default_rng(3)
    taker = rig.taker(capacity=4)
    for _ in range(50):
        rig.ram.words[::512] = 1
        rig.table[:] = rng.integers(-(1 << 62), 1 << 62, len(rig.table))
        free = rig.states == FREE
        for _ in range(FRAME_COUNT + 1):
            if taker.take() is None:
                break
        else:
            pytest.fail("the pass does not end")
        gone = ~rig.ram.words[::512].reshape(FRAME_COUNT, 512).any(axis=1)
        assert not (gone & ~free).any()


def test_another_host_goes_on_where_one_died(rig: Rig) -> None:
    """Frames that were TAKING are free still: they are offered again, and taken."""
    rig.table[FRAMES : FRAMES + FRAME_COUNT] = FREE
    begin_batch(rig.table, 2, FRAME_COUNT, np.zeros(2, np.int64), np.zeros(1, np.int64))
    assert (rig.states == TAKING).sum() == 2
    assert rig.table[BEGUN] == rig.table[ENDED] + 1
    taker = rig.taker(capacity=16)
    assert rig.table[BEGUN] == rig.table[ENDED]
    assert taker.take() == FRAME_COUNT
    assert (rig.states == TAKEN).all()
