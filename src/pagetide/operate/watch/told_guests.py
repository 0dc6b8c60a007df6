"""What the daemon tells of its guests (host/daemon/states.py), as far as people watch it, asked for a few at a time."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pagetide.operate.host.control import ControlConnection

PAGE = 32
"""How many guests are asked for at once: for each the daemon's loop takes some 30 µs, in which it serves nobody."""

_TIMEOUT_S = 8.0


class ToldLag(msgspec.Struct):
    """Of `GuestState.lag`."""

    count: int
    p99_us: int


class ToldGuest(msgspec.Struct):
    """Of `GuestState`."""

    name: str
    account: int
    state: str
    ram_bytes: int
    held_bytes: int
    target_bytes: int
    balloon_bytes: int
    resting: bool
    lag: ToldLag
    ledger: dict[str, int]
    statistics: dict[str, int]
    socket: str | None


class ToldSocket(msgspec.Struct):
    """Of `WaitingState`."""

    name: str


class _Answer(msgspec.Struct):
    guests: list[ToldGuest]
    waiting: list[ToldSocket]
    error: str | None = None
    more_after: str | None = None


_decoder = msgspec.json.Decoder(_Answer)


def ask_daemon(control: Path) -> Iterator[tuple[list[ToldGuest], list[ToldSocket]]]:
    """All guests and all sockets that wait for one, a few at a time.

    Raises:
        OSError: nobody answers there, or not in time.
        msgspec.DecodeError: what answers is no daemon of ours, or another release's.
    """
    with ControlConnection(control, timeout_s=_TIMEOUT_S) as connection:
        after: str | None = ""
        while after is not None:
            connection.send({"command": "list", "most": PAGE, "after": after})
            answer = _decoder.decode(connection.receive())
            if answer.error is not None:
                raise ConnectionAbortedError(answer.error)
            yield answer.guests, answer.waiting
            after = answer.more_after
