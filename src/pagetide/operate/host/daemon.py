"""A running `pagetide serve` as a source: what it says of each of its guests."""

from pathlib import Path

import msgspec

from pagetide.operate.evidence import DaemonFacts
from pagetide.operate.host.control import ask
from pagetide.operate.sizes import Size


class _Ledger(msgspec.Struct):
    reported_bytes: Size
    discarded_bytes: Size
    verified_bytes: Size
    checked_bytes: Size | None = None
    returned_bytes: Size | None = None
    inflate_returned_bytes: Size | None = None
    refaulted_bytes: Size | None = None


class _Guest(msgspec.Struct):
    """What is read of `GuestState` (host/daemon/states.py)."""

    name: str
    state: str
    paused: bool
    inhibited: bool
    features: tuple[str, ...]
    target_bytes: Size
    balloon_bytes: Size
    ledger: _Ledger
    socket: str | None


class _Answer(msgspec.Struct):
    guests: tuple[_Guest, ...]


def daemon_guests(control: Path, *, timeout_s: float) -> list[tuple[str, str | None, DaemonFacts]]:
    """The name, the socket and the facts of each guest that is attached.

    Raises:
        OSError: nobody answers there.
        msgspec.DecodeError: what answers there is no daemon of ours.
    """
    answer = msgspec.convert(ask(control, {"command": "list"}, timeout_s=timeout_s), _Answer)
    return [(guest.name, guest.socket, _facts(guest)) for guest in answer.guests]


def _facts(guest: _Guest) -> DaemonFacts:
    return DaemonFacts(
        state=guest.state,
        is_paused=guest.paused,
        is_inhibited=guest.inhibited,
        features=guest.features,
        target_bytes=guest.target_bytes,
        balloon_bytes=guest.balloon_bytes,
        reported_bytes=guest.ledger.reported_bytes,
        discarded_bytes=guest.ledger.discarded_bytes,
        verified_bytes=guest.ledger.verified_bytes,
        checked_bytes=guest.ledger.checked_bytes,
        returned_bytes=_sum(guest.ledger.returned_bytes, guest.ledger.inflate_returned_bytes),
        refaulted_bytes=guest.ledger.refaulted_bytes,
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
