"""The page map of a guest: what each of its blocks of 2 MiB is to its host."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from pagetide import linux
from pagetide.host.memory.block_states import AGAIN_ROUNDS, PIECE_NS, look_at_blocks
from pagetide.host.memory.punch import punch_hole
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.memory.file_guest import PAGE, FileGuest

BLOCK = 2 << 20
_BEFORE = 3 * PAGE  # the region begins amid a block


class Guest(FileGuest):
    """Memory of eight blocks in two regions: of three blocks, the first without its first pages, and of five."""

    def __init__(self) -> None:
        """Its regions come in no order."""
        five = MemoryRegion(64 * BLOCK, 5 * BLOCK, 64 * BLOCK, 3 * BLOCK)
        super().__init__(8 * BLOCK, five, MemoryRegion(_BEFORE, 3 * BLOCK - _BEFORE, _BEFORE, _BEFORE))

    def touch(self, first: int, pages: int = BLOCK // PAGE) -> None:
        """Write to pages of the file, of a block if no other number is given."""
        super().touch(first, pages)

    def give_back(self, gpa: int, size_bytes: int, *, verify: bool = True) -> None:
        """Discard a range of the second region as a report would."""
        assert self.punch(gpa, size_bytes, region=1, verify=verify) == 0

    def states(self) -> str:
        """The whole map."""
        return look_at_blocks(self.memory.mappings, 0, lambda: 0).states


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest that is closed afterwards."""
    with closing(Guest()) as made:
        yield made


def test_each_block_has_its_state(guest: Guest) -> None:
    """Held, in part, given back, come back, never there: by what was touched and discarded, by address."""
    pages = BLOCK // PAGE
    assert guest.states() == "nnnnnnnn"
    guest.touch(3, pages - 3)  # all of the block that the region has
    guest.touch(2 * pages, 1)
    guest.touch(3 * pages, 3 * pages)
    assert guest.states() == "hnphhhnn"
    guest.give_back(64 * BLOCK, 2 * BLOCK)
    assert guest.states() == "hnprrhnn"
    guest.touch(4 * pages, 1)
    assert guest.states() == "hnprfhnn"


def test_what_came_back_stays_so_until_it_is_given_back(guest: Guest) -> None:
    """Also after the ledger's look, which counts each page once, and where only a part of the block had gone."""
    pages = BLOCK // PAGE
    guest.touch(3 * pages, pages)
    guest.give_back(64 * BLOCK, BLOCK // 2)
    assert guest.states()[3] == "p"
    guest.touch(3 * pages, 7)
    assert guest.memory.take_refaulted_bytes() == 7 * PAGE
    assert guest.states()[3] == "f"
    guest.touch(3 * pages, pages)
    assert guest.states()[3] == "f"
    guest.give_back(64 * BLOCK, BLOCK)
    assert guest.states()[3] == "r"
    guest.touch(3 * pages, 1)
    assert guest.states()[3] == "f"


def test_what_went_without_being_checked_was_given_back_if_it_was_seen(guest: Guest) -> None:
    """A report of which nobody asked what it returned: gone is what a look had seen there, and else was never there."""
    guest.touch(3 * BLOCK // PAGE, 2 * BLOCK // PAGE)
    assert guest.states()[3:] == "hhnnn"
    guest.give_back(64 * BLOCK, 5 * BLOCK, verify=False)
    assert guest.states()[3:] == "rrnnn"


def test_a_map_is_told_in_pieces(guest: Guest) -> None:
    """A piece ends when its time is over, and the next one goes on there; behind the end there is none."""
    clock = iter(range(0, 1 << 40, PIECE_NS))
    guest.touch(2 * BLOCK // PAGE, 2 * BLOCK // PAGE)
    first = look_at_blocks(guest.memory.mappings, 0, lambda: next(clock))
    assert (first.first, first.blocks, first.states) == (0, 8, "nnh")
    assert first.regions == [(_BEFORE, 3 * BLOCK - _BEFORE, 0), (64 * BLOCK, 5 * BLOCK, 3)]
    assert look_at_blocks(guest.memory.mappings, 3, lambda: next(clock)).states == "hnnnn"
    assert look_at_blocks(guest.memory.mappings, 8, lambda: next(clock)).states == ""
    assert look_at_blocks(guest.memory.mappings, 1 << 70, lambda: next(clock)).states == ""


def test_the_clock_is_asked_after_each_block_where_the_kernel_goes_from_page_to_page(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without cachestat takes ten times as long for a block, so a piece may end after the first."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "cachestat: Function not implemented")

    monkeypatch.setattr(linux, "cachestat", refuse)
    clock = iter(range(0, 1 << 40, PIECE_NS))
    assert look_at_blocks(guest.memory.mappings, 0, lambda: next(clock)).states == "n"
    assert guest.states() == "nnnnnnnn"


def test_pages_that_are_gone_otherwise_are_not_taken_for_held(guest: Guest) -> None:
    """A hole that somebody else made: the kernel is asked, and not our own memory of it."""
    guest.touch(3 * BLOCK // PAGE)
    assert guest.states()[3] == "h"
    punch_hole(guest.fd, 3 * BLOCK, PAGE)
    assert guest.states()[3] == "p"


def test_a_hole_that_somebody_else_made_is_found_within_some_maps(guest: Guest) -> None:
    """Though the file holds no less than before, and nobody told us: each block is asked about again."""
    guest.touch(3 * BLOCK // PAGE, 3 * BLOCK // PAGE)
    assert guest.states()[3:] == "hhhnn"
    punch_hole(guest.fd, 3 * BLOCK, PAGE)
    punch_hole(guest.fd, 5 * BLOCK, PAGE)
    guest.touch(6 * BLOCK // PAGE, BLOCK // PAGE)
    seen = [guest.states()[3:] for _ in range(AGAIN_ROUNDS)]
    assert seen[-1] == "phphn"
    assert "hhhhn" in seen, "none was left out: the test shows nothing"


def test_what_was_discarded_of_a_whole_block_is_seen_at_once(guest: Guest) -> None:
    """Also where nobody asked what that returned, so that no page is marked."""
    guest.touch(3 * BLOCK // PAGE, 4 * BLOCK // PAGE)
    assert guest.states()[3:] == "hhhhn"
    guest.give_back(65 * BLOCK, PAGE)
    guest.touch(4 * BLOCK // PAGE, 1)
    guest.give_back(66 * BLOCK, PAGE, verify=False)
    guest.touch(7 * BLOCK // PAGE, 1)
    assert guest.states()[3:] == "hfphp"
    guest.touch(5 * BLOCK // PAGE, 1)
    assert guest.states()[3:] == "hfhhp"


def test_a_file_that_holds_all_that_it_can_needs_no_question(guest: Guest) -> None:
    """All blocks are held at the first map; one of which something was discarded is asked about."""
    guest.touch(0, 8 * BLOCK // PAGE)
    guest.give_back(65 * BLOCK, PAGE)
    guest.touch(4 * BLOCK // PAGE, 1)
    assert guest.states() == "hhhhfhhh"
    guest.give_back(66 * BLOCK, BLOCK)
    assert guest.states() == "hhhhfrhh"


@pytest.mark.parametrize(("end", "states"), [(0, "nnnnnnnn"), (2 * BLOCK, "hhnnnnnn"), (6 * BLOCK, "hhhhhhnn")])
def test_a_file_that_was_cut_short_holds_nothing_behind_its_end(guest: Guest, end: int, states: str) -> None:
    """Though it holds all that it can, as an empty one does, too."""
    os.truncate(guest.fd, end)
    if end:
        guest.touch(0, end // PAGE)
    assert guest.states() == states
