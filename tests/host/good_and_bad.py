"""Two guests of a server that runs when it is told to: a good one, and one that is bad or has bad luck."""

import socket
from pathlib import Path

from tests.host.guest.served_guest import ServedGuest
from tests.host.server_at_times import ServerAtTimes

GOOD, BAD = "good", "bad"


class GoodAndBad(ServerAtTimes):
    """A server with one socket for both guests, or one for each.

    Attributes:
        good: a guest.
        bad: another.
        bad_guest: the server's end of that.
    """

    def __init__(self, folder: Path, sockets: tuple[str, str] = (GOOD, BAD)) -> None:
        super().__init__()
        self.folder = folder
        for name in dict.fromkeys(sockets):
            self.server.listen(folder / name)
        self.good, self.bad = (self.attach(name) for name in sockets)
        self.bad_guest = self.server.guests[1]

    def attach(self, name: str) -> ServedGuest:
        """One more guest."""
        return self.serving(lambda: ServedGuest(self.connect(name)))

    def connect(self, name: str) -> socket.socket:
        """A connection to one of the sockets."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.folder / name))
        return sock

    def close(self) -> None:
        """Give everything back."""
        self.good.close()
        self.bad.close()
        super().close()
