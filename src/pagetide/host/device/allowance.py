"""How much of the server's time a guest may take for what comes to nothing.

One loop serves all guests, so what a bad one takes is taken from the others. Time spent on blocks that a guest rightly
named is never held against it: that is what the server is for, and turns share it out. All else is: messages, kicks of
an empty ring, blocks that are not the guest's, errors. For those every guest has an allowance that grows by a small
share of the time that passes, up to a burst that any honest driver's start and reset fit into many times over.

Who has used it up rests, unwatched and unserved, until it has grown again. Nothing is lost by that: what it sent
stays in its socket and its rings.

Useful work pays for the steps around it. A driver that fills or empties its balloon reads `num_pages`, names 256 pages
and writes `actual`, again and again; empty pages are named in no time, and the two messages take many times as long.
So pages that are the guest's own earn `PAID_S` for `PAID_PAGES` of them, and steps are taken from that first: looks at
an empty queue, and messages, but only if they come as a driver sends them that waits for each answer. Who works a
little to send a lot thus gets no more of each round than who deflates in earnest, and what is wrong (blocks that are
not the guest's, broken rings, messages by the dozen) is charged whoever sends it.

Whoever connects to a socket may connect again and again, and as often at once as there are descriptors for, so its
guests share one allowance, the socket's. Each takes what a start needs from it when it connects, and more when it needs
more, as long as the socket has any; what it has left it gives back when its connection ends, and what it owes the
socket owes then, all of it. While the socket owes, nobody is accepted there. So however many come and go, all of them
together have the socket's burst and its share of the time. These are token buckets.
Times are arguments here, by a clock that passes while the loop works or sleeps: on a machine where others have the
processor, too, a share of that is a share of the loop.
"""

from typing import NamedTuple

SHARE = 0.02
"""By how much of the time that passes an allowance grows."""

GUEST_BURST_S = 0.05
"""What a guest may use at once that came by no socket: some thousand messages, or some twenty starts."""

START_S = 0.003
"""What one that connects to a socket takes from it at once: a start, which takes 2.5 ms, and a little."""

LISTENER_BURST_S = 1.0
"""What all who connect to one socket may use at once: some three hundred starts."""

CONTROL_BURST_S = 0.25
"""What all clients of the control socket may use at once."""

CHARGE_MAX_S = 0.05
"""Most that one action is charged with."""

RESTED_S = 0.002
"""What a rest gives back, beyond what was overdrawn: nobody rests longer than `REST_MAX_S`, or that time and again
while others at its socket use up what they share.

With nothing to start with, the first look into an empty socket would begin the next rest, and rings would never be
looked at.
"""

REST_MAX_S = (CHARGE_MAX_S + RESTED_S) / SHARE
"""Longest rest after one action: 2.6 s. Only a socket's is longer, when many leave that have all overdrawn."""

PAID_PAGES = 256
"""What Linux names at once; it names fewer only when it finds no more."""

PAID_S = 0.0005
"""Time for steps that so many of the guest's own pages earn, and fewer in proportion less.

The two messages around them take 0.17 ms of an AMD EPYC of 2.5 GHz, so a processor may be a third as fast. It is no
multiple of the turn's own time: a compiled turn on 256 empty pages takes a twentieth of what its messages do.
"""

PAID_MESSAGES = 2
"""Most messages at a time that are paid for: a write that is not answered, and the read that follows."""

PAID_MAX_S = 0.01
"""Most that is earned and not used yet."""


_NOTHING_S = 1e-6
"""What rounding may make of a sum."""

HELD_REST_MAX_S = 60.0
"""Longest rest of a guest that kept the loop waiting without using it (hold_ups.py), and of its socket if it leaves."""


class Use(NamedTuple):
    """What an action was good for.

    Attributes:
        in_vain: share of its time that came to nothing.
        payable: what was in vain is a step that useful work may pay for.
        pages: the guest's own pages that were named, up to `PAID_PAGES`; 0 if any were not its own.
        served_s: CPU time that it took before, in the loop's step (kick_step.py).
        blocked_s: time besides that, there.
        earned_pages: those that were named in turns before it, in the step.
    """

    in_vain: float
    payable: bool = False
    pages: int = 0
    served_s: float = 0.0
    blocked_s: float = 0.0
    earned_pages: int = 0


IN_VAIN = Use(1.0)
"""All of it came to nothing, and nothing pays for it."""

STEP = Use(1.0, payable=True)
"""A step that returns no memory: messages, or a look at an empty queue."""

WANTED = Use(0.0)
"""The host wanted it."""


class Allowance:
    """One guest's, or one listener's.

    Attributes:
        spent_s: all that was ever spent.
    """

    spent_s: float

    def __init__(self, burst_s: float, now_s: float, source: "Allowance | None" = None) -> None:
        """Begin with all of it.

        Args:
            burst_s: what may be spent at once; a source owes it if it has not so much.
            now_s: the time.
            source: the allowance that this one's growth is taken from, and what is lacking; None if it grows by itself.
        """
        assert burst_s > 0
        self.spent_s = 0.0
        self._burst_s = burst_s
        self._left_s = burst_s
        self._paid_s = 0.0
        self._as_of_s = now_s
        self._source = source
        if source is not None:
            source._left_s -= burst_s

    def spend(self, used_s: float, now_s: float) -> None:
        """Take away what was used."""
        assert used_s >= 0
        used_s = min(used_s, CHARGE_MAX_S)
        self.spent_s += used_s
        self._grow(now_s)
        self._left_s -= used_s
        if self._left_s < 0 and self._source is not None:
            self._left_s += self._source.give(-self._left_s, now_s)

    def earn(self, pages: int) -> None:
        """So many of the guest's own pages were dealt with, which pays for steps to come."""
        assert pages >= 0
        self._paid_s = min(self._paid_s + PAID_S * pages / PAID_PAGES, PAID_MAX_S)

    def pay(self, used_s: float) -> float:
        """Pay for a step with what was earned; what is left to `spend`."""
        assert used_s >= 0
        paid_s = min(used_s, self._paid_s)
        self._paid_s -= paid_s
        return used_s - paid_s

    def rest_s(self, now_s: float) -> float:
        """How long to rest; 0 while something is left."""
        self._grow(now_s)
        return 0.0 if self._left_s >= 0 else (RESTED_S - self._left_s) / SHARE

    def rest_more_s(self, now_s: float) -> float:
        """How long to go on resting at the end of a rest; mostly 0.

        That is because its source had not enough to give, or it has come to owe more meanwhile for those who left.
        """
        self._grow(now_s)
        lacks_s = min(RESTED_S, self._burst_s) - self._left_s
        if lacks_s <= _NOTHING_S:
            return 0.0
        return REST_MAX_S if self._source is not None else lacks_s / SHARE

    def end(self, now_s: float) -> None:
        """It is used no more: what is left is the source's, or what is owed."""
        self._grow(now_s)
        if self._source is not None:
            self._source._left_s = min(self._source._left_s + self._left_s, self._source._burst_s)

    def _grow(self, now_s: float) -> None:
        grown_s = min(SHARE * (now_s - self._as_of_s), self._burst_s - self._left_s)
        self._as_of_s = now_s
        self._left_s += grown_s if self._source is None else self._source.give(grown_s, now_s)

    def give(self, wanted_s: float, now_s: float) -> float:
        """Let another allowance grow by this much, or by what there is; by how much."""
        self._grow(now_s)
        given_s = min(wanted_s, max(0.0, self._left_s))
        self._left_s -= given_s
        return given_s
