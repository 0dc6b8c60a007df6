"""A server that runs in a thread, and connections to it."""

import os
import socket
import threading
from pathlib import Path

from pagetide.host.daemon.server import Server
from pagetide.host.guest.attached import AttachedGuest
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest, wait_readable


class Running:
    """A server and the thread that runs it."""

    def __init__(self) -> None:
        self.gone: list[tuple[AttachedGuest, str]] = []
        self.gone_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.server = Server(on_guest_gone=self._on_gone)
        self.thread = threading.Thread(target=self.server.run, args=(self.stop_fd,), daemon=True)

    def _on_gone(self, guest: AttachedGuest, reason: str) -> None:
        self.gone.append((guest, reason))
        os.eventfd_write(self.gone_fd, 1)

    def start(self) -> None:
        """Begin to serve."""
        self.thread.start()

    def stop(self) -> None:
        """Serve no more, and close the server."""
        os.eventfd_write(self.stop_fd, 1)
        if self.thread.is_alive():
            self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()
        self.server.close()
        os.close(self.stop_fd)
        os.close(self.gone_fd)

    def await_gone(self, count: int = 1) -> str:
        """Wait until that many guests have gone in all; why the last one went."""
        while len(self.gone) < count:
            wait_readable(self.gone_fd)
            os.eventfd_read(self.gone_fd)
        return self.gone[-1][1]


def connect(tmp_path: Path) -> socket.socket:
    """A connection to the server."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(tmp_path / "host"))
    return sock


def two_guests(running: Running) -> tuple[ServedGuest, ServedGuest]:
    """Start a server with two guests that it has adopted."""
    pairs = [socket.socketpair() for _ in range(2)]
    for _, theirs in pairs:
        running.server.adopt(theirs)
    running.start()
    first, second = (ServedGuest(ours) for ours, _ in pairs)
    return first, second
