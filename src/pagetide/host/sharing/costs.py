"""What each party of the loop costs in vain, by the thread's CPU time, and who rests until when.

A party is a guest, or a socket at which guests connect, whose allowance they share. The clock here passes while the
loop works or sleeps, and not while others have its processor; allowance.py says what it is for.
"""

import time
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

from pagetide.host.device.allowance import HELD_REST_MAX_S, IN_VAIN, SHARE, Allowance, Use

Party = TypeVar("Party", bound=Hashable)


class Costs(Generic[Party]):
    """Allowances and rests of all parties.

    Attributes:
        clock_s: the time, as it was when the round began.
    """

    clock_s: float

    def __init__(self) -> None:
        """Start without parties."""
        self.clock_s = 0.0
        self._lap_end_s = 0.0  # the thread's CPU time when it was last asked
        self._round_start_s = 0.0
        self._allowances: dict[Party, Allowance] = {}
        self._resting: dict[Party, float] = {}  # until when
        self._last: tuple[Party, Use] | None = None  # whose action was the round's last

    def enter(self, party: Party, burst_s: float, *, at: Party | None = None) -> None:
        """A new party, that may use so much at once; it takes that, and more, from what all share that are `at` one."""
        assert party not in self._allowances
        self._allowances[party] = Allowance(burst_s, self.clock_s, None if at is None else self._allowances[at])

    def leave(self, party: Party) -> None:
        """A party is no more; what it has left, or owes, is the one's that it was at."""
        self._resting.pop(party, None)
        self._allowances.pop(party).end(self.clock_s)

    def lap_s(self) -> float:
        """The thread's CPU time since this was last asked: one reading ends an action and begins the next."""
        start_s, self._lap_end_s = self._lap_end_s, time.thread_time()
        return self._lap_end_s - start_s

    def begin_round(self, passed_s: float) -> None:
        """A round of the loop begins; it ends with `end_round`.

        Args:
            passed_s: for how long the loop has slept since the last round, and worked on what is accounted for by
                itself.
        """
        self.lap_s()
        self._round_start_s = self._lap_end_s
        self.clock_s += passed_s

    @property
    def resting(self) -> Collection[Party]:
        """Whose rest has begun and not ended: always the same object."""
        return self._resting

    def end_round(self) -> None:
        """The loop has ended a round.

        What it took besides the actions is the last one's: whoever wakes the loop for next to nothing, again and
        again, pays for what the loop does then, too, but for the look itself. A rest that comes of that begins with
        that party's next action; one that has begun lasts longer.
        """
        rest_of_round_s = self.lap_s()
        if self._last is not None and self._last[0] in self._allowances:
            party, use = self._last
            spent_s = self._spend(party, use, rest_of_round_s)
            if party in self._resting:
                self._resting[party] += spent_s / SHARE
        self._last = None
        self.clock_s += self._lap_end_s - self._round_start_s

    def charge(self, party: Party, used_s: float) -> bool:
        """Take what a party used in vain from its allowance; whether that has used it up, so that a rest begins."""
        return self.account(party, IN_VAIN, used_s)

    def account(self, party: Party, use: Use, used_s: float) -> bool:
        """Settle an action that was of this use and took so long; answer as for `charge`."""
        self._allowances[party].earn(use.pages + use.earned_pages)
        self._last = party, use
        return self._spend(party, use, used_s) > 0 and self.must_rest(party)

    def must_rest(self, party: Party) -> bool:
        """Whether a party's allowance is used up, by itself or by others who share it, so that a rest begins."""
        rest_s = self._allowances[party].rest_s(self.clock_s)
        begins = rest_s > 0 and party not in self._resting
        if begins:
            self.rest_until(party, self.clock_s + rest_s)
        return begins

    def _spend(self, party: Party, use: Use, used_s: float) -> float:
        """Take what is not paid for from a party's allowance; how much that was."""
        allowance = self._allowances[party]
        in_vain_s = use.in_vain * used_s
        if use.payable:
            in_vain_s = allowance.pay(in_vain_s)
        if in_vain_s > 0:
            allowance.spend(in_vain_s, self.clock_s)
        return in_vain_s

    def hold_up(self, party: Party, held_s: float) -> bool:
        """A party kept the loop waiting for so long: it rests until that is no more than its share of the time.

        Whether a rest begins; one that is under way already only lasts longer.
        """
        begins = party not in self._resting
        until_s = self.clock_s + min(held_s / SHARE, HELD_REST_MAX_S)
        self._resting[party] = max(until_s, self._resting.get(party, 0.0))
        return begins

    def rests_until_s(self, party: Party) -> float:
        """Until when, by `clock_s`, a party rests; 0 if it does not."""
        return self._resting.get(party, 0.0)

    def spent_s(self, party: Party) -> float:
        """All that a party has used in vain."""
        return self._allowances[party].spent_s

    def is_resting(self, party: Party) -> bool:
        """Whether a party's rest has begun, and not ended by `take_rested`."""
        return party in self._resting

    def rest_until(self, party: Party, until_s: float) -> None:
        """A party rests until this time of `clock_s`."""
        assert party in self._allowances
        self._resting[party] = until_s

    def take_rested(self) -> Iterator[Party]:
        """Those whose rest is over, one at a time; each may be charged until it is named, and rests no more then."""
        for party in [party for party, until_s in self._resting.items() if until_s <= self.clock_s]:
            if party not in self._resting:  # it has gone meanwhile
                continue
            more_s = self._allowances[party].rest_more_s(self.clock_s)
            if more_s > 0:
                self._resting[party] = self.clock_s + more_s
                continue
            del self._resting[party]
            yield party

    def until_next_s(self, timeout_s: float) -> float:
        """For how long to sleep: this long (for ever if negative), but not longer than the shortest rest."""
        if not self._resting:
            return timeout_s
        left_s = max(0.0, min(self._resting.values()) - self.clock_s)
        return left_s if timeout_s < 0 else min(timeout_s, left_s)
