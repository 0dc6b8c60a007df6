"""A guest that keeps all rules, in a thread: it reports without pause, and looks at what became of every page."""

import os
import random
import select
import socket
import threading
import time
from pathlib import Path
from typing import Self

from soak.part import BrokenError
from tests.host.guest.served_guest import ServedGuest
from tests.host.guest_ring import PAGE, RING_PAGES

PAGES = 256
WAIT_MAX_S = 90.0
"""For a report to be acknowledged. The daemon has the lowest priority and may be started anew meanwhile."""
_WORDS = PAGE // 8


class HonestGuest:
    """Reports blocks of its memory and verifies each of them: gone from the host, and nothing beside it changed.

    Attributes:
        rounds: reports that were acknowledged and verified.
        is_waiting: whether a report is out.
        longest_wait_s: for an acknowledgement, so far.
    """

    def __init__(self, path: Path, seed: int) -> None:
        """Attach at a socket, and begin."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(path))
        self.guest = ServedGuest(sock, pages=PAGES)
        self.rounds, self.is_waiting, self.longest_wait_s = 0, False, 0.0
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
        except BaseException as error:
            self._error = error

    def _round(self) -> None:
        ring, words = self.guest.ring, self.guest.ring.ram.words
        count = self._rng.randrange(1, 9)
        blocks = [(page, 1) for page in sorted(self._rng.sample(range(RING_PAGES, PAGES), count))]
        gone = {page for page, _ in blocks}
        kept = set(range(RING_PAGES, PAGES)) - gone
        self.guest.submit(blocks)
        self._wait()
        resident = ring.resident_pages()
        if gone & resident:
            raise BrokenError(f"pages {sorted(gone & resident)} were acknowledged and are still there")
        if kept - resident:
            raise BrokenError(f"pages {sorted(kept - resident)} are gone, and were not reported")
        for page in gone:
            start = page * _WORDS
            words[start : start + _WORDS] = range(start, start + _WORDS)
        harmed = [page for page in kept if not ring.intact(page)]
        if harmed:
            raise BrokenError(f"pages {harmed} are not what was written to them")

    def _wait(self) -> None:
        """Until the one element that is out is used."""
        start_s = time.monotonic()
        self.is_waiting = True
        driver, call_fd = self.guest.ring.driver, self.guest.call_fd
        while not (used := driver.take_used()):
            if time.monotonic() - start_s > WAIT_MAX_S or self._over.is_set():
                raise BrokenError(f"a report was not acknowledged within {time.monotonic() - start_s:.0f} s")
            if not driver.arm_call() and select.select([call_fd], [], [], 1.0)[0]:
                os.eventfd_read(call_fd)
        self.is_waiting = False
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - start_s)
        if len(used) != 1:
            raise BrokenError(f"{len(used)} elements came back for one")
