"""A server that runs only while something is to be served."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from pagetide.host.daemon.keeper import Keeper
from pagetide.host.daemon.server import Server
from pagetide.machine.live.host_warm_up import warm_up_host
from tests.host.guest.served_guest import TIMEOUT_S

_T = TypeVar("_T")


class ServerAtTimes:
    """A server, and a thread for it whenever one is needed; between times its state can be looked at."""

    def __init__(self, keeper: Keeper | None = None) -> None:
        warm_up_host()  # or a guest is charged with the loading of kernels, uses up its allowance, and rests
        self.server = Server(keeper=keeper)
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)

    def serving(self, action: Callable[[], _T]) -> _T:
        """Do something while the server runs; what it answers."""
        thread = threading.Thread(target=self.server.run, args=(self._stop_fd,), daemon=True)
        thread.start()
        try:
            return action()
        finally:
            os.eventfd_write(self._stop_fd, 1)
            thread.join(5 * TIMEOUT_S)
            assert not thread.is_alive(), "the server hangs"
            os.eventfd_read(self._stop_fd)

    def close(self) -> None:
        """Give everything back."""
        self.server.close()
        os.close(self._stop_fd)
