"""What the daemon tells of its guests (host/daemon/states.py), as far as people watch it, asked for a few at a time."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pagetide.operate.host.control import Part, ask_in_parts

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


class _Told(Part):
    guests: list[ToldGuest]
    waiting: list[ToldSocket]


def ask_daemon(control: Path) -> Iterator[tuple[list[ToldGuest], list[ToldSocket]]]:
    """All guests and all sockets that wait for one, a few at a time; raises what `ask_in_parts` does."""
    for told in ask_in_parts(control, {"command": "list", "most": PAGE}, _Told, timeout_s=_TIMEOUT_S):
        yield told.guests, told.waiting
