"""How much of the server's time a guest may take for what comes to nothing.

One loop serves all guests, so what a bad one takes is taken from the others. Time spent on blocks that a guest rightly
named is never held against it: that is what the server is for, and turns share it out. All else is: messages, kicks of
an empty ring, blocks that are not the guest's, errors. For those every guest has an allowance that grows by a small
share of the time that passes, up to a burst that any honest driver's start and reset fit into many times over. Who has
used it up rests, unwatched and unserved, until it has grown again. Nothing is lost by that: what it sent stays in its
socket and its rings.

A guest that comes back on its socket comes back to what it has spent: what a connection cost is charged to its
listener when it ends. This is a token bucket. Times are arguments here, by a clock that passes while the loop works or
sleeps: on a machine where others have the processor, too, a share of that is a share of the loop.
"""

SHARE = 0.02
"""By how much of the time that passes an allowance grows."""

GUEST_BURST_S = 0.05
"""What a guest may use at once, and begins with: some thousand messages, or some twenty starts."""

LISTENER_BURST_S = 0.25
"""The same for all who connect to one socket: some hundred connections."""

CHARGE_MAX_S = 0.05
"""Most that one action is charged with, and most that an allowance is overdrawn by: nobody rests longer than 2.5 s."""


class Allowance:
    """One guest's, or one listener's.

    Attributes:
        spent_s: all that was ever spent.
    """

    spent_s: float

    def __init__(self, burst_s: float, now_s: float) -> None:
        """Begin with all of it."""
        assert burst_s > 0
        self.spent_s = 0.0
        self._burst_s = burst_s
        self._left_s = burst_s
        self._as_of_s = now_s

    def spend(self, used_s: float, now_s: float) -> None:
        """Take away what was used."""
        assert used_s >= 0
        used_s = min(used_s, CHARGE_MAX_S)
        self.spent_s += used_s
        self._left_s = max(self._left_at(now_s) - used_s, -CHARGE_MAX_S)
        self._as_of_s = now_s

    def rest_s(self, now_s: float) -> float:
        """How long to rest; 0 while something is left."""
        left_s = self._left_at(now_s)
        return 0.0 if left_s >= 0 else -left_s / SHARE

    def _left_at(self, now_s: float) -> float:
        return min(self._left_s + SHARE * (now_s - self._as_of_s), self._burst_s)
