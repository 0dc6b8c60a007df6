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
        """Tell an event; what cannot be told is the log's trouble, and not of whoever logs."""
        try:
            guest = getattr(record, "guest", None)
            named = None if guest is None else _encodable(guest)
            text = _encodable(record.getMessage()[:_TEXT_MAX])
            self._tell(msgspec.json.encode(Event(record.created, record.levelname.lower(), named, text)) + b"\n")
        except Exception:
            self.handleError(record)


def _encodable(text: str) -> str:
    """A socket's name may have bytes that are no UTF-8, of which Python makes surrogates."""
    return text.encode(errors="replace").decode()
