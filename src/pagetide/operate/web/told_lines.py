"""What the daemon tells the process of its page, a line of JSON each: first a greeting, then what its log says."""

import logging
from collections.abc import Callable
from typing import Self

import msgspec

_TEXT_MAX = 500


class Greeting(msgspec.Struct, frozen=True):
    """The first line.

    Attributes:
        token: what who may change anything has to know; empty if nobody may.
    """

    token: str


class Event(msgspec.Struct, frozen=True):
    """An event of the daemon's log.

    Attributes:
        t_s: when, in seconds since 1970.
        level: `info`, `warning` or `error`.
        guest: whom it is about, if it is about one.
        text: what happened.
    """

    t_s: float
    level: str
    guest: str | None
    text: str


def greeting(token: str) -> bytes:
    """The first line."""
    return msgspec.json.encode(Greeting(token)) + b"\n"


class LogLines(logging.Handler):
    """Tells each event of the log while it is a context."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        """Know how to tell a line."""
        super().__init__(logging.INFO)
        self._tell = tell

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell an event."""
        guest = getattr(record, "guest", None)
        event = Event(record.created, record.levelname.lower(), guest, record.getMessage()[:_TEXT_MAX])
        self._tell(msgspec.json.encode(event) + b"\n")
