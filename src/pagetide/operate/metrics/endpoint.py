"""The process that answers scrapes, started by the daemon (endpoint_process.py) with a listening socket.

It ends when its standard input does, which is when the daemon ends. Neither a slow client nor many of them can do more
than keep others from scraping, and that for `REQUEST_MAX_S`.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from pagetide.operate.metrics.scraping import Scraping

CLIENTS_MAX = 16
"""Most connections at once; who comes beyond that is hung up on."""

REQUEST_MAX_S = 15.0
"""Longest that a client has a connection, however little it says at a time."""

_SILENCE_MAX_S = 5.0
_SENT_BYTES = 1 << 16  # at a time
_PLACE = "/metrics"
_PAGE = b'<!doctype html><title>pagetide</title><p><a href="/metrics">metrics</a>\n'


class Endpoint(ThreadingHTTPServer):
    """Answers at a socket that listens already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, scraping: Scraping) -> None:
        """Take over a listening socket."""
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.scraping = scraping
        self._places = threading.BoundedSemaphore(CLIENTS_MAX)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread a client, while there is room for one."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Deal with a client, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a client, or hang up on it once its time is over."""
        limit = threading.Timer(REQUEST_MAX_S, _hang_up, [request])
        limit.daemon = True
        limit.start()
        try:
            super().finish_request(request, client_address)
        finally:
            limit.cancel()
            limit.join()  # the connection is closed next, and its descriptor may become another's

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up amid an answer is no news; all else is told."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have hung up itself
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    timeout = _SILENCE_MAX_S
    wbufsize = _SENT_BYTES
    server_version, sys_version = "pagetide", ""

    def do_GET(self) -> None:
        """Answer a scrape."""
        if self.path == "/":
            self._answer(HTTPStatus.OK, [_PAGE], "text/html; charset=utf-8")
            return
        if self.path.partition("?")[0] != _PLACE:
            self._answer(HTTPStatus.NOT_FOUND, [b"There is only /metrics.\n"], "text/plain; charset=utf-8")
            return
        try:
            text, content_type = self.server.scraping.answer(self.headers.get("Accept", ""))
        except (OSError, msgspec.DecodeError) as error:
            sentence = f"The daemon does not answer: {error}\n".encode()
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, [sentence], "text/plain; charset=utf-8")
            return
        self._answer(HTTPStatus.OK, text, content_type)

    def _answer(self, status: HTTPStatus, body: Sequence[bytes], content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(sum(map(len, body))))
        self.end_headers()
        self.wfile.writelines(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing: what is scraped is no event."""


def main(words: list[str]) -> None:
    """Answer until standard input ends."""
    fd, control, daemon_pid = words
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the daemon, which answers what it has taken first
    listener = socket.socket(fileno=int(fd))
    endpoint = Endpoint(listener, Scraping(Path(control), int(daemon_pid)))
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    while os.read(sys.stdin.fileno(), 1):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
