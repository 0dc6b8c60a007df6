"""Records on their way into the store: several a transaction, as one costs DuckDB more than a run's rows do."""

import time
from collections.abc import Callable
from typing import Self

from pagetide.compare.results.records import Record
from pagetide.compare.results.store import Store
from pagetide.workers.database import ResultsError

_WAIT_MAX_S = 0.5
_RECORDS_MAX = 64


class Arrivals:
    """Takes records one by one, and says of each when it is kept. In a `with` statement none is left at the end."""

    def __init__(
        self, store: Store, kept: Callable[[Record], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing has arrived yet.

        Args:
            store: where records are kept.
            kept: called with each once whatever happens leaves it there.
            clock: tells the time in seconds.
        """
        self._store, self._kept, self._clock = store, kept, clock
        self._waiting: list[Record] = []
        self._since_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep()

    def take(self, record: Record) -> None:
        """A record arrived; ResultsError if those that wait cannot be written."""
        if not self._waiting:
            self._since_s = self._clock()
        self._waiting.append(record)
        self.keep_old()

    def keep_old(self) -> None:
        """Keep what waits, if that is half a second old or much; ResultsError if it cannot be written."""
        if len(self._waiting) >= _RECORDS_MAX or self._clock() - self._since_s >= _WAIT_MAX_S:
            self._keep()

    def _keep(self) -> None:
        """Keep all that waits; one that cannot be written takes no other with it."""
        records, self._waiting = self._waiting, []
        if not records:
            return
        try:
            self._store.add(*records)
        except ResultsError:
            self._keep_each(records)
            return
        for record in records:
            self._kept(record)

    def _keep_each(self, records: list[Record]) -> None:
        """One by one; then the first error is raised."""
        first: ResultsError | None = None
        for record in records:
            try:
                self._store.add(record)
            except ResultsError as error:
                first = first or error
            else:
                self._kept(record)
        if first is not None:
            raise first
