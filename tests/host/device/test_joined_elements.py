"""Elements of one turn are dealt with together: in few calls, and as if each had come alone."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device.queues import joined
from pagetide.host.memory import ranges as range_kernels
from pagetide.jit import JIT_DISABLED
from pagetide.virtio.split_ring.device import push_used
from pagetide.virtio.split_ring.ring import RingError
from tests.host.device.test_large_elements import PAGES, REPORTING, Rig
from tests.host.guest_ring import PAGE, RING_PAGES

FIRST = RING_PAGES + 1
MANY = 1 << 12


@pytest.fixture
def rig() -> Iterator[Rig]:
    """One whose turns are as long as a daemon's."""
    rig = Rig(MANY)
    yield rig
    rig.close()


def pages_of(elements: Sequence[Sequence[tuple[int, int]]]) -> set[int]:
    """All pages of these elements."""
    return {page for element in elements for start, size in element for page in range(start, start + size)}


def kept(rig: Rig, pages: set[int]) -> set[int]:
    """Which of these pages hold what the guest wrote; to look at one that was discarded brings it back."""
    return {page for page in pages if rig.guest.intact(page)}


def test_elements_that_adjoin_are_one_call(rig: Rig) -> None:
    """Sixteen of four pages each, in any order: one hole, each element back, and each byte counted once."""
    elements = [[(FIRST + 4 * place, 4)] for place in np.random.default_rng(3).permutation(16)]
    rig.put(*elements)
    assert rig.turn() == (16, 16, True)  # as many elements as a turn has
    assert rig.turn() == (0, 0, False)
    assert rig.gone() == pages_of(elements)
    assert [rig.word(name) for name in ("punches", "reports", "blocks")] == [1, 16, 16]
    assert rig.word("returned_bytes") == rig.word("verified_bytes") == rig.word("reported_bytes") == 64 * PAGE


def test_elements_come_back_in_the_order_in_which_they_came(rig: Rig) -> None:
    """Whatever the order of their addresses."""
    for page in (60, 20, 40):
        rig.put([(page, 1)])
    heads = [rig.guest.ram.words.view("u2")[(rig.guest.place.avail_gpa & 0xFFFFFF) // 2 + 2 + n] for n in range(3)]
    rig.device.process(REPORTING, 16)
    used = rig.guest.ram.words.view("u4")[(rig.guest.place.used_gpa & 0xFFFFFF) // 4 + 1 :]
    assert [used[2 * n] for n in range(3)] == heads


def test_an_element_that_is_not_of_the_turn_is_left_alone(rig: Rig) -> None:
    """Seventeen that adjoin: the last page is neither discarded nor acknowledged with those before it."""
    elements = [[(FIRST + place, 1)] for place in range(17)]
    rig.put(*elements)
    assert rig.turn() == (16, 16, True)
    assert rig.guest.intact(FIRST + 16)
    assert rig.turn() == (1, 1, False)
    assert rig.gone() == pages_of(elements)


def test_what_is_wrong_in_one_element_is_only_its_own(rig: Rig) -> None:
    """An element outside of memory among good ones, and one that names a page twice."""
    rig.put([(FIRST, 2)], [(PAGES + 5, 1)], [(FIRST + 2, 1), (FIRST + 2, 1)], [(FIRST + 3, 1)])
    assert rig.turn() == (4, 4, False)
    assert rig.gone() == set(range(FIRST, FIRST + 4))
    assert (rig.word("skipped_out_of_range_bytes"), rig.word("skipped_repeated_bytes")) == (PAGE, PAGE)
    assert rig.word("punches") == 1
    assert rig.balances()


def test_a_broken_ring_gives_back_what_came_before(rig: Rig) -> None:
    """Elements that were taken before the one that cannot be read are gone, and acknowledged."""
    rig.put([(FIRST, 1)], [(FIRST + 1, 1)])
    view = rig.guest.ram.words.view("u2")
    avail = (rig.guest.place.avail_gpa & 0xFFFFFF) // 2
    view[avail + 2 + 2] = 0xFFFF
    view[avail + 1] = 3
    with pytest.raises(RingError):
        rig.turn()
    assert len(rig.guest.driver.take_used()) == 2
    assert rig.gone() == {FIRST, FIRST + 1}


ELEMENTS = st.lists(
    st.lists(st.tuples(st.integers(RING_PAGES, PAGES - 9), st.integers(1, 8)), min_size=1, max_size=4),
    min_size=1,
    max_size=24,
)


def _only_what_was_reported(elements: list[list[tuple[int, int]]], punches_max: int = MANY) -> None:
    """Of any elements: exactly their pages go, all else stays as the guest wrote it, and each is counted by itself."""
    rig = Rig(punches_max)
    try:
        rig.put(*elements)
        others = set(range(RING_PAGES, PAGES)) - pages_of(elements)
        answered, more = 0, True
        while more:
            back, _, more = rig.turn()
            answered += back
            assert rig.gone() >= pages_of(elements[:answered])
            assert kept(rig, others) == others
        assert answered == len(elements)
        assert rig.gone() == pages_of(elements)
        assert rig.word("discarded_bytes") == sum(len(pages_of([element])) for element in elements) * PAGE
        assert rig.word("returned_bytes") == len(pages_of(elements)) * PAGE  # who names it twice gave it once
        assert rig.balances()
    finally:
        rig.close()


@settings(deadline=None, max_examples=80)
@given(ELEMENTS, st.sampled_from([1, 5, 9, MANY]))
def test_only_what_was_reported_goes(elements: list[list[tuple[int, int]]], punches_max: int) -> None:
    """No hole covers a page that is not out for reporting at that moment: the guest may be writing there."""
    _only_what_was_reported(elements, punches_max)


def _covering(gap_pages: int) -> Callable[..., int]:
    """A wrong way to join: ranges with so many pages between them become one."""

    def join(ranges: np.ndarray, count: int) -> int:
        range_kernels.sort_ranges(ranges, count)
        rows = ranges[:count].tolist()
        for row, after in pairwise(range(count)):
            if 0 < rows[after][0] - rows[row][1] <= gap_pages * PAGE:
                ranges[row, range_kernels.RANGE_END] = rows[after][0]
        return range_kernels.join_adjacent(ranges, count)

    return join


@pytest.mark.skipif(not JIT_DISABLED, reason="kernels can be replaced with NUMBA_DISABLE_JIT=1 only")
@pytest.mark.parametrize("gap_pages", [1, 4])
def test_a_hole_over_pages_between_is_caught(gap_pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: every second page is reported, in two elements, and the guest writes to the others."""
    elements = [[(FIRST + 4 * place, 1) for place in range(8)], [(FIRST + 2 + 4 * place, 1) for place in range(8)]]
    _only_what_was_reported(elements)
    monkeypatch.setattr(joined, "join_adjacent", _covering(gap_pages))
    with pytest.raises(AssertionError):
        _only_what_was_reported(elements)


@pytest.mark.skipif(not JIT_DISABLED, reason="kernels can be replaced with NUMBA_DISABLE_JIT=1 only")
def test_nothing_is_given_back_before_it_is_gone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever an element is given back, its pages are holes, and read back as such."""
    elements = [[(FIRST + 3 * place, 2)] for place in range(9)]
    seen: list[tuple[int, int]] = []

    def looking(*arguments: Any) -> int:
        seen.append((len(rig.gone() & pages_of(elements[: len(seen) + 1])), rig.word("verified_bytes") // PAGE))
        return int(push_used(*arguments))

    monkeypatch.setattr(joined, "push_used", looking)
    rig.put(*elements)
    rig.turn()
    assert len(seen) == 9
    assert all(gone == 2 * (place + 1) <= verified for place, (gone, verified) in enumerate(seen))
