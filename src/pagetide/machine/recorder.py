"""What the starting process records of a run: samples of shared memory, and when each phase began and ended."""

import mmap

import numpy as np

from pagetide.guest.zone_layout import (
    FREE_PAGES,
    ISOLATED_BLOCKS_MAX,
    ISOLATED_PAGES,
    LOCK_WAIT_NS_MAX,
    PCP_COUNT,
    REFAULTED_PAGES,
    REPORTED_PAGES,
    STAMP_ERRORS,
    WAIT_HOST_NS_MAX,
    vcpu_base,
    words_count,
)
from pagetide.host.ledger import (
    CHECKED_BYTES,
    DISCARDED_BYTES,
    LEDGER_WORDS,
    REPORTED_BYTES,
    REPORTS,
    VERIFIED_BYTES,
    Ledger,
)
from pagetide.machine.config import RunConfig
from pagetide.machine.measure import Series, Span, bursts
from pagetide.machine.messages import PhaseBegan, PhaseEnded
from pagetide.machine.result import RunResult, Sample, Samples
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES


class Recorder:
    """Samples a run and sums it up. Reads the guest's arena and the host's ledger, and never writes them."""

    def __init__(self, config: RunConfig, ram_fd: int, arena: mmap.mmap, ledger: mmap.mmap) -> None:
        """Take the shared memory of a run that has not begun; `ram_fd` stays the caller's."""
        self._config, self._ram_fd = config, ram_fd
        self._words = np.frombuffer(arena, np.int64, words_count(config.vcpus))
        self._ledger = Ledger(np.frombuffer(ledger, np.int64, LEDGER_WORDS))
        self._vcpu_bases = np.array([vcpu_base(vcpu) for vcpu in range(config.vcpus)])
        self._samples: list[Sample] = []
        self._verified_bytes: list[int] = []
        self._spans: list[Span] = []
        self._eat: tuple[float, float, int] | None = None
        self._free_start_s = 0.0
        self._start_s: float | None = None
        self._end_s = 0.0
        self._cpu_s: dict[str, float | None] = {}

    def phase_began(self, message: PhaseBegan) -> None:
        """A phase began; the first one starts the run's clock."""
        if self._start_s is None:
            self._start_s = message.at_s
        if message.eats:
            self._eat = (message.at_s - self._start_s, 0.0, 0)
        else:
            self._free_start_s = message.at_s - self._start_s

    def phase_ended(self, message: PhaseEnded) -> None:
        """A phase's operations are done; a burst is complete once it has freed."""
        assert self._start_s is not None
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
        words = self._words
        pcp_pages = int(words[self._vcpu_bases + PCP_COUNT].sum())
        free_pages = int(words[FREE_PAGES]) + pcp_pages
        used_pages = self._config.ram_bytes // PAGE_SIZE_BYTES - free_pages - int(words[ISOLATED_PAGES])
        sample = Sample(
            t_s=now_s - self._start_s,
            guest_used_bytes=used_pages * PAGE_SIZE_BYTES,
            guest_free_bytes=free_pages * PAGE_SIZE_BYTES,
            reported_bytes=int(words[REPORTED_PAGES]) * PAGE_SIZE_BYTES,
            host_resident_bytes=resident_bytes(self._ram_fd),
        )
        self._samples.append(sample)
        self._verified_bytes.append(int(self._ledger.words[VERIFIED_BYTES]))
        return sample

    def begin(self, cpu_s: dict[str, float | None]) -> None:
        """The run is about to start; CPU time of both processes so far."""
        self._cpu_s = cpu_s

    def end(self, now_s: float, cpu_s: dict[str, float | None]) -> None:
        """The run is over; CPU time of both processes up to now, None for one that is gone."""
        self._end_s = now_s
        for name, before_s in self._cpu_s.items():
            after_s = cpu_s[name]
            self._cpu_s[name] = None if before_s is None or after_s is None else after_s - before_s

    def result(self, outcome: str) -> RunResult:
        """Everything that was measured; both processes have ended."""
        words, ledger, bases = self._words, self._ledger, self._vcpu_bases
        columns = Samples(**{name: [getattr(sample, name) for sample in self._samples] for name in Sample._fields})
        series = Series(
            np.array(columns.t_s),
            np.array(columns.host_resident_bytes, np.int64),
            np.array(self._verified_bytes, np.int64),
        )
        return RunResult(
            config=self._config,
            outcome=outcome,
            duration_s=0.0 if self._start_s is None else self._end_s - self._start_s,
            bursts=bursts(self._spans, series, self._config.ram_bytes),
            peak_resident_bytes=max(columns.host_resident_bytes, default=0),
            floor_resident_bytes=min(columns.host_resident_bytes, default=0),
            isolated_blocks_max=int(words[ISOLATED_BLOCKS_MAX]),
            vcpu_wait_host_s_max=float(words[bases + WAIT_HOST_NS_MAX].max()) / 1e9,
            zone_lock_wait_s_max=float(words[LOCK_WAIT_NS_MAX]) / 1e9,
            stamp_errors=int(words[bases + STAMP_ERRORS].sum()),
            refaulted_bytes=int(words[bases + REFAULTED_PAGES].sum()) * PAGE_SIZE_BYTES,
            reports=int(ledger.words[REPORTS]),
            reported_bytes=int(ledger.words[REPORTED_BYTES]),
            discarded_bytes=int(ledger.words[DISCARDED_BYTES]),
            checked_bytes=int(ledger.words[CHECKED_BYTES]),
            verified_bytes=int(ledger.words[VERIFIED_BYTES]),
            skipped_bytes=ledger.skipped_bytes(),
            guest_cpu_s=self._cpu_s.get("guest"),
            host_cpu_s=self._cpu_s.get("host"),
            samples=columns,
        )
