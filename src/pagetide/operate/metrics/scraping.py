"""What is answered to a scrape: guests as the daemon tells of them, and both processes as the kernel does."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder

from pagetide.operate.metrics.accounts import Accounts
from pagetide.operate.metrics.exposition import END, Text
from pagetide.operate.metrics.series import WORDS
from pagetide.operate.metrics.told import ask_daemon

FRESH_S = 1.0
"""For so long an answer is given again: whoever scrapes more often does not ask the daemon more often."""


class Scraping:
    """Answers scrapes, one at a time."""

    def __init__(self, control: Path, daemon_pid: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Know how to ask.

        Args:
            control: the daemon's control socket.
            daemon_pid: its process.
            clock_s: the time.
        """
        self._control = control
        self._clock_s = clock_s
        self._accounts = Accounts(clock_s)
        self._lock = threading.Lock()
        self._texts: dict[bool, tuple[float, Sequence[bytes]]] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(pid=lambda: daemon_pid, registry=self._registry)
        ProcessCollector(namespace="pagetide_metrics", registry=self._registry)
        self._took = Gauge(
            "pagetide_metrics_last_scrape_duration_seconds",
            "How long the answer before this one took to make.",
            registry=self._registry,
        )

    def answer(self, accept: str) -> tuple[Sequence[bytes], str]:
        """The text that an Accept header asks for, or plain text if it asks for none, and its content type.

        The text is in pieces, since what is joined to megabytes at once is memory that the kernel gives page by page.

        Raises:
            OSError, msgspec.DecodeError: as `ask_daemon`.
        """
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # of a version that is no number
            encode, content_type = choose_encoder("")
        openmetrics = content_type.startswith("application/openmetrics-text")
        with self._lock:
            start_s = self._clock_s()
            made_s, text = self._texts.get(openmetrics, (-FRESH_S, ()))
            if start_s - made_s >= FRESH_S or not text:
                self._texts.clear()
                theirs = encode(self._registry).removesuffix(END)
                ours = self._of_guests(openmetrics=openmetrics)
                text = [theirs, *ours.pieces(), END if openmetrics else b""]
                self._texts[openmetrics] = start_s, text
                self._took.set(self._clock_s() - start_s)
        return text, content_type

    def _of_guests(self, *, openmetrics: bool) -> Text:
        """What there is of guests, and of those that have left of late."""
        text, told = Text(openmetrics=openmetrics), set[str]()
        for guests, sockets in ask_daemon(self._control, WORDS):
            text.add(self._accounts.attached(guests))
            text.add(self._accounts.waiting(sockets))
            told |= {guest.name for guest in guests} | {sock.name for sock in sockets}
        text.add(self._accounts.gone(told))
        return text
