"""A log of events: one line each on standard error, or an entry with fields of its own in systemd's journal.

To the journal an event goes by its native protocol: a datagram with a line `NAME=value` for each field, or, where the
value has several lines, the name, 8 bytes of length and the value; one too large for that is a sealed memory file. That
is documented at systemd.io/JOURNAL_NATIVE_PROTOCOL; libraries for Python bring libsystemd along for these few lines.
"""

import array
import fcntl
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pagetide import linux

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
"""Where the journal takes entries."""

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog(3)
_DEBUG = 7
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_NO_NAME = re.compile("[^A-Z0-9_]")
_NAME_MAX = 64


def event_fields(record: logging.LogRecord) -> dict[str, str | int]:
    """What an event says, by name: the guest if it is about one, what happened, figures, and a traceback."""
    guest = getattr(record, "guest", None)
    fields: dict[str, str | int] = {} if guest is None else {"guest": guest}
    fields |= {"event": record.getMessage()} | getattr(record, "figures", {})
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


class LineFormatter(logging.Formatter):
    """One line an event: `time=… level=info guest="vm1" event="attached"`, values quoted as in JSON.

    A record's `figures`, by name, follow as fields of their own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = event_fields(record)
        text = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        return f"time={when} level={record.levelname.lower()} {text}"


class JournalHandler(logging.Handler):
    """Sends events to the journal: the same fields as in a line, in capitals, with MESSAGE and PRIORITY."""

    def __init__(self, otherwise: logging.Handler, path: Path = JOURNAL_SOCKET) -> None:
        """Send to a socket; what it does not take now, which a loop must not wait for, another handler gets."""
        super().__init__()
        self._otherwise, self._path = otherwise, path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send an event."""
        try:
            self._send(_entry(record))
        except OSError:
            self._otherwise.handle(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()
        super().close()

    def _send(self, entry: bytes) -> None:
        try:
            self._socket.sendto(entry, str(self._path))
        except OSError as error:
            if isinstance(error, BlockingIOError | FileNotFoundError | ConnectionRefusedError):
                raise
            self._send_as_file(entry)  # it was too large

    def _send_as_file(self, entry: bytes) -> None:
        fd = linux.memfd_create("pagetide-event")
        try:
            os.write(fd, entry)
            linux.add_seals(fd, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            self._socket.sendmsg([], rights, 0, str(self._path))
        finally:
            os.close(fd)


def log_handler(environment: Mapping[str, str] = os.environ, path: Path = JOURNAL_SOCKET) -> logging.Handler:
    """Where events go: to the journal if standard error is connected to it, which JOURNAL_STREAM says, else there."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(LineFormatter())
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # it is closed, or none of the kernel's
        return lines
    if environment.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}":
        return lines
    return JournalHandler(lines, path)


def _entry(record: logging.LogRecord) -> bytes:
    """An event as the journal takes it."""
    fields = event_fields(record)
    guest, event = fields.get("guest"), fields["event"]
    message = event if guest is None else f"{guest}: {event}"
    priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
    named: dict[str, str | int] = {"message": message, "priority": priority, "syslog_identifier": "pagetide"}
    return b"".join(_field(name, str(value)) for name, value in (named | fields).items())


def _field(name: str, value: str) -> bytes:
    name = _NO_NAME.sub("_", name.upper()).strip("_")[:_NAME_MAX]
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
