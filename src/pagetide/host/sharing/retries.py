"""When to try again what failed for want of something that others may give back, descriptors say."""

from collections.abc import Hashable
from typing import Generic, TypeVar

FIRST_S = 0.1
LONGEST_S = 2.0
"""Longest time until the next try: whoever raises a limit sees the daemon go on within this."""

Party = TypeVar("Party", bound=Hashable)


class Retries(Generic[Party]):
    """How long each party waits for its next try: longer after each failure in a row."""

    def __init__(self) -> None:
        self._next_s: dict[Party, float] = {}

    def failed(self, party: Party) -> float:
        """For how long to wait now."""
        wait_s = self._next_s.get(party, FIRST_S)
        self._next_s[party] = min(2 * wait_s, LONGEST_S)
        return wait_s

    def succeeded(self, party: Party) -> bool:
        """Begin anew; whether it had failed before."""
        return self._next_s.pop(party, None) is not None

    @property
    def failing(self) -> tuple[Party, ...]:
        """Those that failed last."""
        return tuple(self._next_s)
