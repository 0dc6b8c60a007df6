"""What a punch returns: bytes that were there, and not those that never were."""

import fcntl
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from pagetide.host.memory.presence import ROOM_BYTES, ask_before, gone_bytes, held_bytes, returned_bytes
from pagetide.host.memory.punch import punch_hole
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.memory.file_guest import PAGE, FileGuest

LARGE = 2 << 20
SIZE = 8 * LARGE
_F_SEAL_FUTURE_WRITE = 0x10  # include/uapi/linux/fcntl.h; forbids punching, too


class Guest(FileGuest):
    """Memory of 16 MiB in one region."""

    def __init__(self) -> None:
        """All of the file."""
        super().__init__(SIZE, MemoryRegion(0, SIZE, 0, 0))

    def discard(self, first: int, pages: int, *, verify: bool = True) -> dict[str, int]:
        """Discard pages in one range; by how much the ledger's words grew."""
        before = self.ledger.snapshot()
        self.punch(first * PAGE, pages * PAGE, region=0, verify=verify)
        return {name: value - before[name] for name, value in self.ledger.snapshot().items()}

    def refaulted_pages(self) -> int:
        """Look at all of it once."""
        found = self.memory.take_refaulted_bytes()
        assert not self.memory.looking
        return found // PAGE


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest that is closed afterwards."""
    with closing(Guest()) as made:
        yield made


def test_what_was_never_there_is_verified_gone_and_not_returned(guest: Guest) -> None:
    """Ten touched pages in a block of 64: all 64 are gone, ten came back; the second time none does."""
    guest.touch(3, 4)
    guest.touch(40, 6)
    told = guest.discard(0, 64)
    assert (told["checked_bytes"], told["verified_bytes"], told["returned_bytes"]) == (64 * PAGE, 64 * PAGE, 10 * PAGE)
    told = guest.discard(0, 64)
    assert (told["verified_bytes"], told["returned_bytes"]) == (64 * PAGE, 0)


def test_without_a_check_nothing_counts_as_returned(guest: Guest) -> None:
    """Of what nobody looked at it is not known whether it was there, nor whether it came back later."""
    guest.touch(0, 64)
    told = guest.discard(0, 64, verify=False)
    assert (told["discarded_bytes"], told["checked_bytes"], told["returned_bytes"]) == (64 * PAGE, 0, 0)
    guest.touch(0, 64)
    assert guest.refaulted_pages() == 0


def test_refaulted_is_what_was_returned_and_touched_again(guest: Guest) -> None:
    """First touches of pages that were discarded without having been there are none; each return counts once."""
    guest.touch(3, 4)
    guest.touch(40, 6)
    guest.discard(0, 64)
    guest.touch(0, 64)
    assert guest.refaulted_pages() == 10
    assert guest.refaulted_pages() == 0
    guest.discard(0, 64)
    guest.touch(8, 16)
    assert guest.refaulted_pages() == 16


def test_what_came_back_and_went_before_it_was_looked_for_counts_too(guest: Guest) -> None:
    """Whole blocks and parts, small and large: each page once for each time that it was returned."""
    pages = 2 * LARGE // PAGE
    for _ in range(3):
        guest.touch(0, pages)
        guest.discard(0, pages)
        guest.touch(pages + 3, 4)
        guest.touch(pages + 40, 6)
        guest.discard(pages, 64)
    assert guest.refaulted_pages() == 2 * (pages + 10)
    guest.touch(0, 5)
    assert guest.refaulted_pages() == 5  # of what was returned the third time
    guest.discard(0, pages)
    assert guest.refaulted_pages() == 0


def test_large_blocks_are_told_exactly_whole_or_in_part(guest: Guest) -> None:
    """Whole ones are weighed from the second on; one in part ends that, and what was there is told all the same."""
    pages = LARGE // PAGE
    guest.touch(0, 6 * pages)
    assert [guest.discard(block * pages, pages)["returned_bytes"] for block in range(3)] == [LARGE] * 3
    punch_hole(guest.fd, 3 * LARGE, LARGE // 4)
    assert guest.discard(3 * pages, pages)["returned_bytes"] == 3 * LARGE // 4
    punch_hole(guest.fd, 4 * LARGE, LARGE // 2)
    assert guest.discard(4 * pages, pages)["returned_bytes"] == LARGE // 2
    guest.touch(3 * pages, 2 * pages)
    assert guest.refaulted_pages() == pages // 2  # not of block 3, which was weighed and not all there
    assert guest.ledger.snapshot()["verified_bytes"] == 5 * LARGE


def test_who_touches_memory_meanwhile_is_not_taken_for_less_that_came_back(guest: Guest) -> None:
    """A page touched elsewhere during a punch: that piece counts for its fall, and the next ones are counted."""
    room = np.zeros(ROOM_BYTES // 8, np.int64)
    guest.touch(0, 4 * LARGE // PAGE)
    for block, expected in enumerate((LARGE, LARGE - PAGE, LARGE, LARGE)):
        held = ask_before(guest.fd, block * LARGE, LARGE, room.ctypes.data, 1)
        if block:
            guest.touch(5 * LARGE // PAGE + block, 1)
        assert punch_hole(guest.fd, block * LARGE, LARGE) == 0
        gone = gone_bytes(guest.fd, block * LARGE, LARGE)
        assert returned_bytes(guest.fd, LARGE, room.ctypes.data, 1, held, gone) == expected


def test_what_could_not_be_discarded_was_not_returned(guest: Guest) -> None:
    """A file sealed against writes: the call fails, and pages that are still there are no refaults."""
    guest.touch(3, 4)
    fcntl.fcntl(guest.fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
    told = guest.discard(0, 64)
    assert (told["skipped_failed_bytes"], told["returned_bytes"]) == (64 * PAGE, 0)
    assert guest.refaulted_pages() == 0


def test_a_count_agrees_with_seeking(guest: Guest) -> None:
    """cachestat(2) and lseek(2) tell the same of a stretch that begins and ends within data and holes."""
    room = np.zeros(ROOM_BYTES // 8, np.int64)
    guest.touch(10, 20)
    guest.touch(50, 1)
    for first, end in ((0, 64), (15, 51), (30, 50), (12, 13), (29, 31)):
        counted = held_bytes(guest.fd, first * PAGE, (end - first) * PAGE, room.ctypes.data)
        assert counted == held_bytes(guest.fd, first * PAGE, (end - first) * PAGE, 0)
        assert counted == sum(10 <= page < 30 or page == 50 for page in range(first, end)) * PAGE
