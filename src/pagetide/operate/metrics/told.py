"""What the daemon tells of its guests (host/daemon/states.py), as far as it is measured, asked for a few at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pagetide.operate.host.control import ControlConnection

PAGE = 64
"""How many guests are asked for at once: for each the daemon's loop takes some 20 µs, in which it serves nobody."""

_TIMEOUT_S = 8.0  # Prometheus gives up after 10


class ToldGuest(msgspec.Struct, array_like=True):
    """`GuestFigures`, field by field."""

    name: str
    account: int
    state: str
    given_up: int
    resting: bool
    allowance_spent_s: float
    ram_bytes: int
    shared_bytes: int
    held_bytes: int
    target_bytes: int
    balloon_bytes: int
    waiting: dict[str, int]
    statistics: dict[str, int]
    words: list[int]
    waited: tuple[int, int]
    within: list[int]
    wrong: tuple[int, int, int]


class ToldSocket(msgspec.Struct):
    """Of `WaitingState`."""

    name: str
    given_up: int


class _Answer(msgspec.Struct):
    figures: list[ToldGuest]
    waiting: list[ToldSocket]
    error: str | None = None
    more_after: str | None = None


_decoder = msgspec.json.Decoder(_Answer)


def ask_daemon(control: Path, words: Sequence[str]) -> Iterator[tuple[list[ToldGuest], list[ToldSocket]]]:
    """All guests, with these words of their ledgers, and all sockets that wait for one, a few at a time.

    While one answer is dealt with, the next is being made.

    Raises:
        OSError: nobody answers there, or not in time.
        msgspec.DecodeError: what answers is no daemon of ours, or another release's.
    """
    with ControlConnection(control, timeout_s=_TIMEOUT_S) as connection:
        request = {"command": "figures", "most": PAGE, "words": words}
        connection.send(request)
        while True:
            answer = _decoder.decode(connection.receive())
            if answer.error is not None:
                raise ConnectionAbortedError(answer.error)
            if answer.more_after is not None:
                connection.send(request | {"after": answer.more_after})
            yield answer.figures, answer.waiting
            if answer.more_after is None:
                return
