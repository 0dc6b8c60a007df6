"""Swap: whatever is beyond a host's room is swapped out."""

from pagetide.fleet.hosts.answering.answer import Answer, Pressed, into_swap


def answer(pressed: Pressed) -> Answer:
    """All into swap."""
    return into_swap(pressed.over, pressed.host)
