"""A VM's page map, read a piece at a time."""

import mmap
import os
from pathlib import Path

import pytest

from pagetide.host.device.allowance import SHARE
from pagetide.host.memory.block_states import PIECE_NS
from pagetide.host.memory.page_map import MapPiece
from pagetide.operate.watch.guest_map import DAEMON_BURST_S, REST_MAX_S, GuestMap, KernelMap, Pace
from tests.operate.watch.seen_vms import seen, seen_by_kernel

BLOCK = 2 << 20


class Told:
    """A source that tells these pieces, one after the other."""

    def __init__(self, *pieces: MapPiece) -> None:
        self.asked: list[int] = []
        self._pieces = list(pieces)

    def piece(self, first: int) -> MapPiece:
        self.asked.append(first)
        return self._pieces.pop(0)


def test_pieces_make_a_map_that_is_read_again_and_again() -> None:
    """Each is asked for behind the one before; in the next round what was read before stays until it is read anew."""
    regions = [(0, 5 * BLOCK, 0)]
    told = Told(*(MapPiece(first, 5, states, regions) for first, states in ((0, "hhh"), (3, "nn"), (0, "rr"))))
    page_map = GuestMap(told)
    assert [page_map.read(), page_map.read()] == [False, True]
    assert (bytes(page_map.letters), page_map.rounds, page_map.counts()) == (b"hhhnn", 1, {"h": 3, "n": 2})
    assert not page_map.read()
    assert page_map.letters == b"rrhnn"
    assert told.asked == [0, 3, 0]


def test_memory_that_comes_amid_a_round_begins_a_new_one() -> None:
    """Blocks have other numbers then."""
    before, after = [(0, 3 * BLOCK, 0)], [(0, 3 * BLOCK, 0), (8 * BLOCK, BLOCK, 3)]
    told = Told(MapPiece(0, 3, "hh", before), MapPiece(2, 4, "hh", after), MapPiece(0, 4, "rrrr", after))
    page_map = GuestMap(told)
    assert [page_map.read(), page_map.read(), page_map.read()] == [False, False, True]
    assert (bytes(page_map.letters), page_map.regions, told.asked) == (b"rrrr", after, [0, 2, 0])


def test_a_guest_without_memory_has_an_empty_map() -> None:
    """A round is over at once."""
    page_map = GuestMap(Told(MapPiece(0, 0, "", [])))
    assert page_map.read()
    assert (bytes(page_map.letters), page_map.counts()) == (b"", {})


def test_pieces_leave_most_of_the_control_sockets_share_to_others() -> None:
    """A quarter of it for who shows maps, so that the page and `top` together take half; no rest is endless."""
    ours, other = seen("a"), seen_by_kernel("b", 7)
    piece_s = PIECE_NS / 1e9
    pace, now_s, pieces = Pace(0.0), 0.0, 0
    while now_s < 3600.0:
        now_s, pieces = now_s + piece_s, pieces + 1
        now_s += pace.rest_s(ours, piece_s, now_s)
    assert piece_s * pieces == pytest.approx(DAEMON_BURST_S + SHARE / 4 * now_s, rel=0.01)
    assert 0 < pace.rest_s(other, piece_s, now_s) < pace.rest_s(ours, piece_s, now_s)
    assert pace.rest_s(ours, 8.0, now_s) == pytest.approx(REST_MAX_S)


def test_a_small_guests_map_is_read_at_once() -> None:
    """Between its pieces the daemon has as much time for guests as they take; so it is again a while after."""
    piece_s = PIECE_NS / 1e9
    pace, now_s = Pace(0.0), 0.0
    for _ in range(2):
        at_once = 0
        while pace.rest_s(seen("a"), piece_s, now_s) == piece_s:
            at_once += 1
        assert at_once * piece_s == pytest.approx(DAEMON_BURST_S, abs=piece_s)
        now_s += 2 * DAEMON_BURST_S / SHARE * 4


def test_the_kernel_tells_of_any_process() -> None:
    """Untouched, touched in part and whole; what was seen to go was given back, and may come back."""
    size = 3 * BLOCK + 4096
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        start = _address(size)
        page_map = GuestMap(KernelMap(os.getpid(), [(start, start + size)]))
        states = []
        for change in (
            lambda: None,
            lambda: memory.write(b"\1" * (BLOCK + 1)),
            lambda: memory.madvise(mmap.MADV_DONTNEED, 0, BLOCK),
            lambda: touch(memory, 0, 3 * BLOCK),
        ):
            change()
            assert page_map.read()
            states.append(page_map.letters.decode())
    assert states == ["nnnn", "hpnn", "rpnn", "fpnh"]


def touch(memory: mmap.mmap, *places: int) -> None:
    """Write a byte at each."""
    for place in places:
        memory[place] = 1


def _address(size_bytes: int) -> int:
    """Where our mapping of this size is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if end - start == size_bytes:
            return start
    raise AssertionError("the mapping is one of its own")
