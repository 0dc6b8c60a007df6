"""A running `pagetide serve` as a source: one request to its control socket, and what it says of one guest."""

import socket
from pathlib import Path
from typing import Any

import msgspec

from pagetide.operate.evidence import DaemonFacts
from pagetide.operate.sizes import Size

_TIMEOUT_S = 10.0
_RECEIVE_BYTES = 65536
_ANSWER_BYTES_MAX = 64 << 20


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


def ask(control: Path, request: dict[str, Any], *, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
    """Send a request, and wait for the answer.

    Raises:
        OSError: nobody answers there.
        msgspec.DecodeError: what answers there is no daemon of ours.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(str(control))
        sock.sendall(msgspec.json.encode(request) + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            more = sock.recv(_RECEIVE_BYTES)
            if not more:
                raise ConnectionResetError("the daemon closed the connection")
            data += more
            if len(data) > _ANSWER_BYTES_MAX:
                raise ConnectionAbortedError("the answer is too long for a daemon's")
    answer: dict[str, Any] = msgspec.json.decode(data)
    return answer


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
