"""Counters that go on when a guest comes back, and guests that are remembered for a while after they have left.

A daemon's account begins anew with each connection. A series that fell back to 0 whenever a VM reboots would be right
for Prometheus and wrong for a person, so what earlier accounts came to is added here; it is forgotten with the guest.
"""

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import NamedTuple

from pagetide.host.device.figures import GuestFigures
from pagetide.operate.metrics.series import COUNTED, PRESENT, Value, counted_values, present_values, series_count
from pagetide.operate.metrics.told import ToldSocket

REMEMBERED_S = 300.0
"""For how long the counters of a guest that has left are told: longer than a reboot takes."""

_ABSENT: list[Value] = [None] * series_count(PRESENT)
_NEVER: list[Value] = [None] * series_count(COUNTED)

Counts = list[int | float]


class Row(NamedTuple):
    """One guest as it is to be told: its name, and its values by `FAMILIES`."""

    name: str
    values: list[Value]


class _Account:
    """What one guest's accounts have come to."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self._number: int | None = None
        self._before: Counts = []
        self._last: Counts = []

    def note(self, guest: GuestFigures) -> None:
        """Take what is told now."""
        now = counted_values(guest)
        if guest.account != self._number:
            self._before, self._number = self.totals, guest.account
        elif now[-1] < self._last[-1]:  # what is counted by connection, and not by account
            self._before = self._before or [0] * len(now)
            self._before[-1] += self._last[-1]
        self._last = now

    @property
    def totals(self) -> Counts:
        """What all of them together have come to, by `COUNTED`."""
        return list(map(add, self._before, self._last)) if self._before else self._last


class Accounts:
    """Those of all guests."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Know of nobody; the clock says how long ago somebody left."""
        self._clock_s = clock_s
        self._accounts: dict[str, _Account] = {}

    def attached(self, guests: Iterable[GuestFigures]) -> Iterator[Row]:
        """What is to be told of guests that are attached."""
        now_s = self._clock_s()
        for guest in guests:
            account = self._accounts.get(guest.name)
            if account is None:
                account = self._accounts[guest.name] = _Account()
            account.note(guest)
            account.seen_s = now_s
            yield Row(guest.name, [1, guest.given_up, guest.state, *present_values(guest), *account.totals])

    def waiting(self, sockets: Iterable[ToldSocket]) -> Iterator[Row]:
        """What is to be told of sockets at which nobody is attached."""
        for sock in sockets:
            yield Row(sock.name, [0, sock.given_up, None, *_ABSENT, *(self._counts(sock.name) or _NEVER)])

    def gone(self, told: set[str]) -> Iterator[Row]:
        """What is to be told of guests that have left, and whose socket has, besides those that were told already."""
        for name in [name for name in self._accounts if name not in told]:
            counts = self._counts(name)
            if counts is not None:
                yield Row(name, [0, None, None, *_ABSENT, *counts])

    def _counts(self, name: str) -> Counts | None:
        """What somebody came to who is not attached, unless that was long ago."""
        account = self._accounts.get(name)
        if account is None:
            return None
        if self._clock_s() - account.seen_s > REMEMBERED_S:
            del self._accounts[name]
            return None
        return account.totals
