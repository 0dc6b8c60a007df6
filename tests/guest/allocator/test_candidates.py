"""The map of candidates against a plain set."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pagetide.guest.allocator.candidates import map_clear, map_next, map_reset, map_set
from pagetide.guest.allocator.zone import Zone
from pagetide.guest.allocator.zone_layout import map_words


@settings(deadline=None, max_examples=60)
@given(data=st.data(), nr_pages=st.sampled_from([1, 31, 32, 33, 1024, 1025, 40_000]))
def test_it_is_a_set_of_positions_in_order(data: st.DataObject, nr_pages: int) -> None:
    """Setting and clearing say whether they changed anything, and the next position is the set's next one."""
    words = Zone(nr_pages).words
    held: set[int] = set()
    positions = st.integers(0, nr_pages - 1)
    for _ in range(30):
        position = data.draw(positions)
        if data.draw(st.booleans()):
            assert bool(map_set(words, position)) == (position not in held)
            held.add(position)
        else:
            assert bool(map_clear(words, position)) == (position in held)
            held.discard(position)
        start = data.draw(positions)
        assert map_next(words, start) == min((one for one in held if one >= start), default=-1)
    map_reset(words)
    assert map_next(words, 0) == -1


@pytest.mark.parametrize("nr_pages", [1, 32, 33, 1 << 10, 1 << 15, (1 << 15) + 1])
def test_the_last_position_is_found_from_the_first(nr_pages: int) -> None:
    """A single bit at the very end is found from anywhere, and clearing it empties every level."""
    words = Zone(nr_pages).words
    map_set(words, nr_pages - 1)
    assert map_next(words, 0) == map_next(words, nr_pages - 1) == nr_pages - 1
    map_clear(words, nr_pages - 1)
    assert not words[-map_words(nr_pages) :].any()
