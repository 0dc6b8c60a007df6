"""How a frame's word changes, without threads."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pagetide.memory.frame_states import (
    REFUSED,
    claim_frame,
    claimed,
    free_frame,
    freed,
    take_abandoned,
    take_begun,
    take_ended,
)
from pagetide.memory.frame_table import (
    FRAMES,
    FREE,
    IN_USE,
    STATE_MASK,
    TAKEN,
    TAKING,
    TICK_MASK,
    TICK_SHIFT,
    table_words,
)

ticks = st.integers(0, TICK_MASK)
STATES = (IN_USE, FREE, TAKING, TAKEN)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        (claimed, {IN_USE: IN_USE, FREE: IN_USE, TAKEN: IN_USE}),
        (lambda word: take_begun(word, 0, 0), {FREE: TAKING}),
        (take_ended, {TAKING: TAKEN}),
        (take_abandoned, {TAKING: FREE}),
    ],
    ids=["claimed", "take_begun", "take_ended", "take_abandoned"],
)
def test_each_change_is_allowed_from_its_states_only(change: object, allowed: dict[int, int]) -> None:
    """The table of transitions, whole: everything that is not in it is refused."""
    for state in STATES:
        word = 0 if state == IN_USE else 77 << TICK_SHIFT | state
        new = change(word)  # type: ignore[operator]
        assert (new if new == REFUSED else new & STATE_MASK) == allowed.get(state, REFUSED)


def test_what_was_not_in_use_is_not_freed() -> None:
    """A frame is offered once; one that the host is discarding or has taken is not offered again."""
    assert freed(IN_USE, 5) == 5 << TICK_SHIFT | FREE
    for state in (FREE, TAKING, TAKEN):
        assert freed(9 << TICK_SHIFT | state, 5) == REFUSED


@given(ticks, ticks)
def test_the_tick_of_the_free_survives_the_taking(tick: int, now: int) -> None:
    """From FREE to TAKEN, and back to FREE where a host gave up, a word keeps the time since which it is free."""
    free = freed(IN_USE, tick)
    taking = take_begun(free, now, 0)
    assert take_ended(taking) >> TICK_SHIFT == tick
    assert take_abandoned(taking) == free


@given(ticks, st.integers(0, 1000), st.integers(1, 1000))
def test_what_is_young_is_not_taken(tick: int, age: int, cool: int) -> None:
    """A frame is taken once it was free for the time to cool, also when the clock has come round."""
    now = tick + age & TICK_MASK
    assert (take_begun(freed(IN_USE, tick), now, cool) == REFUSED) == (age < cool)


def test_a_claim_says_what_the_frame_was() -> None:
    """Claiming changes one word and answers the old one; a frame that is being discarded is left alone."""
    table = np.zeros(table_words(4 << 9), np.int64)
    free_frame(table, FRAMES, 3)
    free_frame(table, FRAMES, 4)
    assert claim_frame(table, FRAMES) == 3 << TICK_SHIFT | FREE
    table[FRAMES + 1] = TAKING
    assert claim_frame(table, FRAMES + 1) == REFUSED
    assert table[FRAMES : FRAMES + 3].tolist() == [IN_USE, TAKING, IN_USE]


def test_the_table_is_whole_memory_pages() -> None:
    """So that a host can map it and nothing else."""
    assert table_words(1) == 512
    assert table_words((512 - FRAMES) << 9) == 512
    assert table_words((512 - FRAMES + 1) << 9) == 1024
