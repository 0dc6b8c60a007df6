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
import select
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
_LINE_MAX = 16 << 10


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
    """Sends events to the journal: the same fields as in a line, in capitals, with MESSAGE and PRIORITY.

    The daemon's loop does not wait for it: what the journal does not take at once is written to standard error as a
    line, which is a stream to the same journal; what that does not take either is lost, and counted.
    """

    def __init__(self, stderr_fd: int, path: Path = JOURNAL_SOCKET) -> None:
        """Send to a socket, or else to a descriptor."""
        super().__init__()
        self._stderr_fd, self._path = stderr_fd, path
        self._lines = LineFormatter()
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send an event, and before it how many were lost."""
        try:
            if self._lost:
                self._tell(_loss(self._lost))
                self._lost = 0
            self._tell(record)
        except OSError:
            self._lost += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()
        super().close()

    def _tell(self, record: logging.LogRecord) -> None:
        try:
            self._send(_entry(record))
        except OSError:
            self._write_line(self._lines.format(record).encode(errors="replace")[:_LINE_MAX] + b"\n")

    def _write_line(self, line: bytes) -> None:
        """Write it if there is room: a socket is writable while three quarters are free (net/unix/af_unix.c)."""
        asked = select.poll()
        asked.register(self._stderr_fd, select.POLLOUT)
        if not any(events & select.POLLOUT for _, events in asked.poll(0)):
            raise BlockingIOError("standard error takes nothing now")
        os.write(self._stderr_fd, line)

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
    return JournalHandler(sys.stderr.fileno(), path)


def _loss(lost: int) -> logging.LogRecord:
    """The event that events were lost."""
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, "the journal did not take events", None, None)
    record.figures = {"lost_events": lost}
    return record


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
