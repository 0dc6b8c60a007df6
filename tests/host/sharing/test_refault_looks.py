"""Looking for memory that came back: piece by piece, guest by guest, and never for long."""

import os

import pytest

from pagetide import linux
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.presence import mark_pages
from pagetide.host.sharing.refault_looks import SHARE, RefaultLooks
from pagetide.memory.region_map import REGION_MARKS
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion

PIECE_BYTES = 64 << 20
PIECE_PAGES = PIECE_BYTES // PAGE_SIZE_BYTES


def test_guests_are_looked_at_in_turn_and_for_a_share_of_the_time() -> None:
    """After a look as much time passes as makes it the share allowed; who has more pieces comes last again."""
    looks: RefaultLooks[str] = RefaultLooks()
    assert looks.until_next_s(0.0, -1) == -1
    for guest in ("one", "two", "one"):
        looks.want(guest)
    now_s, seen = 10.0, []
    for _ in range(4):
        due = looks.take_due(now_s)
        assert due is not None
        seen.append(due)
        looks.looked(due, now_s, now_s + 0.002, more=seen.count(due) == 1)
        assert looks.take_due(now_s + 0.99 * 0.002 / SHARE) is None
        if len(seen) < 4:
            assert looks.until_next_s(now_s + 0.002, -1) == pytest.approx(0.002 / SHARE - 0.002)
            assert looks.until_next_s(now_s + 0.002, 0.001) == 0.001
        now_s += 0.002 / SHARE + 1e-6
    assert seen == ["one", "two", "one", "two"]
    assert looks.take_due(now_s) is None
    assert looks.until_next_s(now_s, -1) == -1


def test_a_guest_that_has_gone_is_not_looked_at() -> None:
    """Also if it goes during its look."""
    looks: RefaultLooks[str] = RefaultLooks()
    for guest in ("one", "two"):
        looks.want(guest)
    assert looks.take_due(0.0) == "one"
    looks.forget("one")
    looks.looked("one", 0.0, 0.0, more=True)
    looks.forget("two")
    assert looks.take_due(1.0) is None


def test_memory_is_looked_at_a_piece_at_a_time() -> None:
    """Pages that were discarded and are resident count once; a piece without any is passed over; a change ends it."""
    fd = linux.memfd_create("test-refaults")
    linux.ftruncate(fd, 4 * PIECE_BYTES)
    for page in (3, 3 * PIECE_PAGES + 5, 3 * PIECE_PAGES + 6):
        os.pwrite(fd, b"x", page * PAGE_SIZE_BYTES)
    memory = GuestMemory()
    try:
        memory.add(MemoryRegion(0, 4 * PIECE_BYTES, 0, 0), os.dup(fd))
        marks = int(memory.region_map.table[0, REGION_MARKS])
        for first in (0, 3 * PIECE_PAGES):
            mark_pages(marks, first, first + 6, 1)
        assert not memory.looking
        told = [memory.take_refaulted_bytes()]
        while memory.looking:
            told.append(memory.take_refaulted_bytes())
        assert told == [PAGE_SIZE_BYTES, PAGE_SIZE_BYTES]
        mark_pages(marks, 3, 4, 1)
        assert memory.take_refaulted_bytes() == PAGE_SIZE_BYTES
        assert memory.looking
        memory.remove(0, 4 * PIECE_BYTES, 0)
        assert not memory.looking
        assert memory.take_refaulted_bytes() == 0
    finally:
        memory.close()
        os.close(fd)
