"""A guest that keeps all rules, in a thread: it reports without pause, and looks at what became of every page."""

import os
import random
import select
import socket
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np

from soak.part import BrokenError
from tests.host.guest.served_guest import ServedGuest
from tests.host.guest_ring import PAGE, RING_PAGES

PAGES = 128
WAIT_MAX_S = 90.0
"""For a report to be acknowledged. The daemon has the lowest priority and may be started anew meanwhile."""
_SLOW_S = 1.0
_REST_MAX_S = 0.01
"""Between reports: several guests in this process must leave time to the daemon that they wait for."""
_WORDS = PAGE // 8
_WRITTEN = np.arange(PAGES * _WORDS).reshape(PAGES, _WORDS)
"""What is in each page, as GuestRing writes it at first."""


class HonestGuest:
    """Reports blocks of its memory and verifies each of them: gone from the host, and nothing beside it changed.

    Attributes:
        rounds: reports that were acknowledged and verified.
        is_waiting: whether a report is out.
        slow: reports that were acknowledged after more than a second.
    """

    def __init__(self, path: Path, seed: int) -> None:
        """Attach at a socket, and begin."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(path))
        self.guest = ServedGuest(sock, pages=PAGES)
        self.rounds, self.slow, self.is_waiting = 0, 0, False
        self._rng, self._over = random.Random(seed), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(WAIT_MAX_S + 10)
        self.guest.close()

    def check(self, *, more: int = 1) -> None:
        """Wait until it has had so many more reports acknowledged and verified.

        Raises:
            BrokenError: something that it saw was not as it must be, or nothing came.
        """
        wanted, deadline_s = self.rounds + more, time.monotonic() + WAIT_MAX_S + 10
        while self.rounds < wanted:
            if self._error is not None:
                raise BrokenError(f"the honest guest: {type(self._error).__name__}: {self._error}")
            if time.monotonic() > deadline_s:
                raise BrokenError("the honest guest's reports are not acknowledged")
            time.sleep(0.005)

    def _go_on(self) -> None:
        try:
            while not self._over.is_set():
                self._round()
                self.rounds += 1
                time.sleep(self._rng.uniform(0, _REST_MAX_S))
        except BaseException as error:
            self._error = error

    def _round(self) -> None:
        ring = self.guest.ring
        words = ring.ram.words.reshape(PAGES, _WORDS)
        count = self._rng.randrange(1, 9)
        blocks = [(page, 1) for page in sorted(self._rng.sample(range(RING_PAGES, PAGES), count))]
        gone = {page for page, _ in blocks}
        kept = np.array(sorted(set(range(RING_PAGES, PAGES)) - gone))
        self.guest.submit(blocks)
        self._wait()
        resident = ring.resident_pages()
        if gone & resident:
            raise BrokenError(f"pages {sorted(gone & resident)} were acknowledged and are still there")
        lost = set(kept.tolist()) - resident
        if lost:
            raise BrokenError(f"pages {sorted(lost)} are gone, and were not reported")
        words[list(gone)] = _WRITTEN[list(gone)]
        harmed = kept[(words[kept] != _WRITTEN[kept]).any(axis=1)]
        if len(harmed):
            raise BrokenError(f"pages {harmed.tolist()} are not what was written to them")

    def _wait(self) -> None:
        """Until the one element that is out is used."""
        start_s = time.monotonic()
        self.is_waiting = True
        driver, call_fd = self.guest.ring.driver, self.guest.call_fd
        connection = self.guest.channel.fileno()
        while not (used := driver.take_used()):
            if time.monotonic() - start_s > WAIT_MAX_S or self._over.is_set():
                raise BrokenError(f"a report was not acknowledged within {time.monotonic() - start_s:.0f} s")
            if driver.arm_call():
                continue
            ready = select.select([call_fd, connection], [], [], 1.0)[0]
            if connection in ready:
                raise BrokenError("its connection was closed")
            if call_fd in ready:
                os.eventfd_read(call_fd)
        self.is_waiting = False
        self.slow += time.monotonic() - start_s > _SLOW_S
        if len(used) != 1:
            raise BrokenError(f"{len(used)} elements came back for one")
