"""The daemon's process: a server until SIGTERM or SIGINT, statistics at an interval, and a log of one line an event."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pagetide.host.server import Server

_log = logging.getLogger(__name__)


class LineFormatter(logging.Formatter):
    """One line an event: `time=… level=info guest="vm1" event="attached"`, values quoted as in JSON.

    A record's `figures`, by name, follow as fields of their own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        guest = getattr(record, "guest", None)
        fields: dict[str, str | int] = {} if guest is None else {"guest": guest}
        fields |= {"event": record.getMessage()} | getattr(record, "figures", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        text = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        return f"time={when} level={record.levelname.lower()} {text}"


def serve(
    server: Server,
    sockets: Sequence[Path],
    control: Path,
    *,
    folder: Path | None = None,
    stats_interval_s: float,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT; then finish what guests have in their rings, answer it and return.

    Args:
        server: without guests and sockets yet; the caller closes it.
        sockets: where guests connect.
        control: where control requests come.
        folder: where sockets are made when they are asked for; those that a dead daemon left are listened at again.
        stats_interval_s: how often guests are asked for their memory statistics; 0 for never.
        on_ready: called once all sockets are there.

    Raises:
        OSError: a socket cannot be had.
    """
    assert stats_interval_s >= 0
    stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        os.eventfd_write(stop_fd, 1)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.wake_by(stop_fd)
        for path in sockets:
            server.listen(path)
        taken = [] if folder is None else server.sockets.listen_in(folder, but_not=control)
        server.listen_control(control)
        _log.info("listening at %s, control at %s", ", ".join(map(str, (*sockets, *taken))) or folder, control)
        on_ready()
        due_s = time.monotonic() + stats_interval_s
        while not stopping:
            now_s = time.monotonic()
            if stats_interval_s and now_s >= due_s:
                server.request_statistics()
                due_s = now_s + stats_interval_s
            server.run_once(due_s - now_s if stats_interval_s and due_s > now_s else 0 if stats_interval_s else -1)
        server.finish()
        _log.info("stopping")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        server.no_wake_by(stop_fd)
        os.close(stop_fd)
