"""What the starting process records of a run: samples of shared memory, and when each phase began and ended."""

from collections.abc import Callable

import numpy as np

from pagetide.host.memory.ledger import (
    CHECKED_BYTES,
    DISCARDED_BYTES,
    INFLATE_ACCOUNT,
    REPORT_ACCOUNT,
    REPORTED_BYTES,
    REPORTS,
    RETURNED_BYTES,
    SKIP_REASONS,
    VERIFIED_BYTES,
    Ledger,
)
from pagetide.machine.config import RunConfig
from pagetide.machine.guest_view import GuestView
from pagetide.machine.measure import Series, Span, bursts, footprint
from pagetide.machine.messages import PhaseBegan, PhaseEnded
from pagetide.machine.rest import rest_bytes
from pagetide.machine.result import RunResult, Sample, Samples
from pagetide.workload.stream import NO_BURST


class Recorder:
    """Samples a run and sums it up. Reads what guest and host share with it, and never writes that."""

    def __init__(self, config: RunConfig, resident: Callable[[], int], guest: GuestView, ledger: Ledger | None) -> None:
        """Take what is shared of a run that has not begun.

        Args:
            config: its settings.
            resident: says what the host holds for the guest.
            guest: what can be seen of the guest.
            ledger: the host's account, as it is at any moment; None if this host does not tell.
        """
        self._config, self._resident, self._guest = config, resident, guest
        self._ledger = ledger
        self._samples: list[Sample] = []
        self._verified_bytes: list[int] = []
        self._spans: list[Span] = []
        self._eat: tuple[float, float, int] | None = None
        self._free_start_s = 0.0
        self._behind_s: float | None = None
        self._start_s: float | None = None
        self._end_s = 0.0
        self._cpu_s: dict[str, float | None] = {}

    def phase_began(self, message: PhaseBegan) -> None:
        """A phase began; the first one starts the run's clock, and all was until then as `begin` found it."""
        if self._start_s is None:
            self._start_s = message.at_s
            self._add(self._first)
        if message.burst == NO_BURST:
            return
        if message.eats:
            self._eat = (message.at_s - self._start_s, 0.0, 0)
        else:
            self._free_start_s = message.at_s - self._start_s

    def phase_ended(self, message: PhaseEnded) -> None:
        """A phase's operations are done; a burst is complete once it has freed."""
        assert self._start_s is not None
        if message.burst == NO_BURST:
            self._behind_s = max(self._behind_s or 0.0, message.behind_s)
            return
        assert self._eat is not None
        at_s = message.at_s - self._start_s
        if message.eats:
            self._eat = (self._eat[0], at_s, message.allocated_bytes)
        else:
            self._spans.append(Span(self._eat[0], self._free_start_s, at_s, self._eat[2]))

    def sample(self, now_s: float) -> Sample | None:
        """Look at everything once; None before the run's clock has started."""
        if self._start_s is None:
            return None
        sample = self._look(now_s - self._start_s)
        self._add((sample, self._told(VERIFIED_BYTES)))
        return sample

    def _look(self, t_s: float) -> Sample:
        now = self._guest.memory()
        reported_bytes, refaulted_bytes = now.reported_bytes, now.refaulted_bytes
        return Sample(t_s, now.used_bytes, now.free_bytes, reported_bytes, self._resident(), refaulted_bytes)

    def _add(self, seen: tuple[Sample, int | None]) -> None:
        sample, verified_bytes = seen
        self._samples.append(sample)
        if verified_bytes is not None:
            self._verified_bytes.append(verified_bytes)

    def begin(self, cpu_s: dict[str, float | None]) -> None:
        """The run is about to start; CPU time of both processes so far. What is so now is the first sample."""
        self._cpu_s = cpu_s
        self._first = self._look(0.0), self._told(VERIFIED_BYTES)

    def end(self, now_s: float, cpu_s: dict[str, float | None]) -> None:
        """The run is over; CPU time of both processes up to now, None for one that is gone."""
        self._end_s = now_s
        for name, before_s in self._cpu_s.items():
            after_s = cpu_s[name]
            self._cpu_s[name] = None if before_s is None or after_s is None else after_s - before_s

    def result(self, outcome: str) -> RunResult:
        """Everything that was measured; both processes have ended."""
        ledger = self._ledger
        columns = Samples.of(self._samples)
        series = Series(
            np.array(columns.t_s),
            np.array(columns.host_resident_bytes, np.int64),
            None if ledger is None else np.array(self._verified_bytes, np.int64),
            np.array(columns.guest_used_bytes, np.int64),
        )
        return RunResult(
            config=self._config,
            outcome=outcome,
            duration_s=0.0 if self._start_s is None else self._end_s - self._start_s,
            bursts=bursts(self._spans, series, rest_bytes(self._config)),
            peak_resident_bytes=max(columns.host_resident_bytes, default=0),
            floor_resident_bytes=min(columns.host_resident_bytes, default=0),
            **footprint(series)._asdict(),
            behind_s_max=self._behind_s,
            **self._guest.totals()._asdict(),
            reports=self._told(REPORTS),
            reported_bytes=self._told(REPORTED_BYTES),
            discarded_bytes=self._told(DISCARDED_BYTES),
            returned_bytes=self._told(RETURNED_BYTES),
            checked_bytes=self._told(CHECKED_BYTES),
            verified_bytes=self._told(VERIFIED_BYTES),
            skipped_bytes=self._skipped_bytes(),
            guest_cpu_s=self._cpu_s.get("guest"),
            host_cpu_s=self._cpu_s.get("host"),
            samples=columns,
        )

    def _skipped_bytes(self) -> dict[str, int] | None:
        if self._ledger is None:
            return None
        return {reason: self._told(word) or 0 for reason, word in SKIP_REASONS.items()}

    def _told(self, word: int) -> int | None:
        """A word of the accounts of what the guest gave back, reported or inflated."""
        if self._ledger is None:
            return None
        value = self._ledger.words.item
        return value(REPORT_ACCOUNT.start + word) + value(INFLATE_ACCOUNT.start + word)
