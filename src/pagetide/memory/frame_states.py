"""How a frame's word in the frame table changes: pure functions of the old word, and what the guest does with them.

The states and who may change what are at the head of frame_table.py.
"""

from typing import Any

from pagetide.atomics import atomic_compare_exchange, atomic_load
from pagetide.jit import kernel
from pagetide.memory.frame_table import FREE, IN_USE, STATE_MASK, TAKEN, TAKING, TICK_MASK, TICK_SHIFT

REFUSED = -1
"""What a transition answers when the state does not allow it."""

_CHANGES_MAX = 4


@kernel
def claimed(old: int) -> int:
    """The guest allocates the frame, or no longer offers it; refused while the host is discarding it."""
    return REFUSED if old & STATE_MASK == TAKING else IN_USE


@kernel
def freed(old: int, tick: int) -> int:
    """All of the frame is free since this tick; refused if it was not in use."""
    return tick << TICK_SHIFT | FREE if old == IN_USE else REFUSED


@kernel
def take_begun(old: int, tick: int, cool_ticks: int) -> int:
    """The host begins to discard the frame; refused unless it is free, and has been for long enough."""
    if old & STATE_MASK != FREE:
        return REFUSED
    if cool_ticks > 0 and (tick - (old >> TICK_SHIFT)) & TICK_MASK < cool_ticks:
        return REFUSED
    return old ^ (FREE ^ TAKING)


@kernel
def take_ended(old: int) -> int:
    """The host has discarded the frame; refused unless it was about to."""
    return old | TAKEN if old & STATE_MASK == TAKING else REFUSED


@kernel
def take_abandoned(old: int) -> int:
    """A host that took over finds a frame that its predecessor was discarding: it is free, and to be taken again."""
    return old ^ (FREE ^ TAKING) if old & STATE_MASK == TAKING else REFUSED


@kernel
def claim_frame(table: Any, index: int) -> int:
    """Make the frame whose word this is IN_USE; what the word was, or REFUSED.

    The other side can change a word at most twice (FREE, TAKING, TAKEN) before it is ours, so trying is bounded.
    """
    for _ in range(_CHANGES_MAX):
        old = atomic_load(table, index)
        new = claimed(old)
        if new == REFUSED:
            return REFUSED
        if atomic_compare_exchange(table, index, old, new) == old:
            return old
    return REFUSED


@kernel
def free_frame(table: Any, index: int, tick: int) -> None:
    """Make the frame whose word this is FREE, if it was IN_USE."""
    old = atomic_load(table, index)
    new = freed(old, tick)
    if new != REFUSED:
        atomic_compare_exchange(table, index, old, new)
