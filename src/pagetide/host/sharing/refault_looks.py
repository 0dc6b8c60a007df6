"""Whose memory is looked at for pages that came back after they were discarded, and when.

A look costs the loop some 5 ms for each GiB in which anything was discarded, and more where little of it is resident.
So it is taken a piece at a time, guest by guest, and takes a small share of the loop's time, however much memory the
guests have. Times are arguments here.
"""

from collections.abc import Collection
from typing import Generic, TypeVar

SHARE = 0.05
"""Most of the loop's time that goes into looks."""

Guest = TypeVar("Guest")


class RefaultLooks(Generic[Guest]):
    """The guests that are to be looked at, in order."""

    def __init__(self) -> None:
        """Have none."""
        self._guests: dict[Guest, None] = {}
        self._due_s = 0.0

    def want(self, guest: Guest) -> None:
        """Have all of a guest's memory looked at, if that is not under way."""
        self._guests[guest] = None

    def forget(self, guest: Guest) -> None:
        """Look at a guest no more."""
        self._guests.pop(guest, None)

    @property
    def wanted(self) -> Collection[Guest]:
        """Who is to be looked at: always the same object."""
        return self._guests

    def take_due(self, now_s: float) -> Guest | None:
        """The guest at which to look now; say with `looked` when that is done."""
        if not self._guests or now_s < self._due_s:
            return None
        return next(iter(self._guests))

    def looked(self, guest: Guest, start_s: float, end_s: float, *, more: bool) -> None:
        """A piece was looked at between these times; whether there is more of this guest."""
        self._due_s = end_s + (end_s - start_s) * (1 / SHARE - 1)
        if self._guests.pop(guest, self) is not self and more:
            self._guests[guest] = None

    def until_next_s(self, now_s: float, timeout_s: float) -> float:
        """For how long to sleep: this long (for ever if negative), but not longer than until a look is due."""
        if not self._guests:
            return timeout_s
        left_s = max(0.0, self._due_s - now_s)
        return left_s if timeout_s < 0 else min(timeout_s, left_s)
