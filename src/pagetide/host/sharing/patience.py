"""Who is waited for, and until when: peers that do not read what is sent to them, or leave a message half sent.

A connection whose replies nobody reads is not listened to, so its end is never seen: who sends it its own other end,
in a message that stays unread, would have it held for ever. Times are arguments here.
"""

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

PATIENCE_S = 30.0
"""How long a peer is waited for. An honest one leaves hundreds of replies unread before this counts at all."""

Party = TypeVar("Party", bound=Hashable)


class Patience(Generic[Party]):
    """All parties that are waited for."""

    def __init__(self) -> None:
        """Wait for nobody."""
        self._until_s: dict[Party, float] = {}

    def note(self, party: Party, since_s: float | None) -> None:
        """A party is waited for since then, or is not (None)."""
        if since_s is None:
            self._until_s.pop(party, None)
        else:
            self._until_s[party] = since_s + PATIENCE_S

    @property
    def waited_for(self) -> Collection[Party]:
        """Who is waited for: always the same object."""
        return self._until_s

    def take_due(self, now_s: float) -> list[Party]:
        """Those that were waited for long enough; they are noted no more."""
        due = [party for party, until_s in self._until_s.items() if until_s <= now_s] if self._until_s else []
        for party in due:
            del self._until_s[party]
        return due

    def until_next_s(self, now_s: float, timeout_s: float) -> float:
        """For how long to sleep: this long (for ever if negative), but not longer than until somebody is due."""
        if not self._until_s:
            return timeout_s
        left_s = max(0.0, min(self._until_s.values()) - now_s)
        return left_s if timeout_s < 0 else min(timeout_s, left_s)
