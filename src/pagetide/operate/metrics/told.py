"""What the daemon tells of its guests (host/daemon/states.py), as far as it is measured, asked for a few at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pagetide.host.device.figures import GuestFigures
from pagetide.operate.host.control import Part, ask_in_parts

PAGE = 64
"""How many guests are asked for at once: for each the daemon's loop takes some 20 µs, in which it serves nobody."""

_TIMEOUT_S = 8.0  # Prometheus gives up after 10


class ToldSocket(msgspec.Struct):
    """Of `WaitingState`."""

    name: str
    given_up: int


class _Told(Part):
    figures: list[GuestFigures]
    waiting: list[ToldSocket]


def ask_daemon(control: Path, words: Sequence[str]) -> Iterator[tuple[list[GuestFigures], list[ToldSocket]]]:
    """All guests, with these words of their ledgers, and all sockets that wait for one, a few at a time.

    It raises what `ask_in_parts` does.
    """
    request = {"command": "figures", "most": PAGE, "words": words}
    for told in ask_in_parts(control, request, _Told, timeout_s=_TIMEOUT_S):
        yield told.figures, told.waiting
