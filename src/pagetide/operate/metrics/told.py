"""What the daemon tells of its guests (host/daemon/states.py), as far as it is measured, asked for a few at a time."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pagetide.operate.host.control import ControlConnection

PAGE = 32
"""How many guests are asked for at once: for each the daemon's loop takes some 30 µs, in which it serves nobody."""

_TIMEOUT_S = 8.0  # Prometheus gives up after 10


class ToldLag(msgspec.Struct):
    """Of `GuestState.lag`."""

    count: int
    sum_us: int
    p99_us: int = 0


class ToldGuest(msgspec.Struct):
    """Of `GuestState`."""

    name: str
    account: int
    state: str
    ram_bytes: int
    shared_bytes: int
    held_bytes: int
    target_bytes: int
    balloon_bytes: int
    resting: bool
    allowance_spent_s: float
    given_up: int
    lag: ToldLag
    lag_within: list[tuple[int, int]]
    ledger: dict[str, int]
    errors: dict[str, int]
    waiting: dict[str, int]
    statistics: dict[str, int]
    socket: str | None = None


class ToldSocket(msgspec.Struct):
    """Of `WaitingState`."""

    name: str
    given_up: int


class _Answer(msgspec.Struct):
    guests: list[ToldGuest]
    waiting: list[ToldSocket]
    error: str | None = None
    more_after: str | None = None


_decoder = msgspec.json.Decoder(_Answer)


def ask_daemon(control: Path) -> Iterator[tuple[list[ToldGuest], list[ToldSocket]]]:
    """All guests and all sockets that wait for one, a few at a time.

    While one answer is dealt with, the next is being made.

    Raises:
        OSError: nobody answers there, or not in time.
        msgspec.DecodeError: what answers is no daemon of ours, or another release's.
    """
    with ControlConnection(control, timeout_s=_TIMEOUT_S) as connection:
        request = {"command": "list", "most": PAGE}
        connection.send(request)
        while True:
            answer = _decoder.decode(connection.receive())
            if answer.error is not None:
                raise ConnectionAbortedError(answer.error)
            if answer.more_after is not None:
                connection.send(request | {"after": answer.more_after})
            yield answer.guests, answer.waiting
            if answer.more_after is None:
                return
