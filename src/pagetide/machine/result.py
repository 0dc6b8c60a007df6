"""What a run measured: the structure of its JSON."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import msgspec

from pagetide.machine.config import RunConfig


class Burst(msgspec.Struct, kw_only=True):
    """One burst: what was eaten, what came back, and how long that took.

    Attributes:
        eat_start_s: when its first block was allocated, on the run's clock.
        free_start_s: when its first block was freed.
        free_end_s: when its last block was freed.
        eaten_bytes: memory allocated and touched.
        returned_bytes: how far the host's residency fell, from its highest in the burst to its lowest after the free.
        verified_bytes: what the ledger read back as gone between this burst's start and the next one's; None if the
            host has no ledger to read.
        return_lag_s: from the last free until residency was within 5 % of what was eaten of the run's floor, what the
            guest used more than then and what the design leaves by design (rest.py); None if it never was.
    """

    eat_start_s: float
    free_start_s: float
    free_end_s: float
    eaten_bytes: int
    returned_bytes: int
    verified_bytes: int | None
    return_lag_s: float | None


class Sample(NamedTuple):
    """The state of things at one moment; the fields are the columns of Samples."""

    t_s: float
    guest_used_bytes: int
    guest_free_bytes: int
    reported_bytes: int | None
    host_resident_bytes: int
    refaulted_bytes: int | None = None


class Samples(msgspec.Struct, kw_only=True):
    """Time series, one entry a sample in each column.

    Attributes:
        t_s: seconds since the run's clock started.
        guest_used_bytes: what the guest has allocated.
        guest_free_bytes: what its allocator could hand out; isolated blocks belong to neither.
        reported_bytes: free memory whose blocks are marked reported; None for a guest that does not tell.
        host_resident_bytes: what the host really holds for the guest, read from the memory file.
        refaulted_bytes: what was touched again after it had been returned, so far; None for a guest that does not tell.
    """

    t_s: list[float] = []
    guest_used_bytes: list[int] = []
    guest_free_bytes: list[int] = []
    reported_bytes: list[int | None] = []
    host_resident_bytes: list[int] = []
    refaulted_bytes: list[int | None] = []

    @classmethod
    def of(cls, rows: Sequence[Sample]) -> Self:
        """The columns of these."""
        columns: list[list[Any]] = [[row[at] for row in rows] for at in range(len(Sample._fields))]
        return cls(**dict(zip(Sample._fields, columns, strict=True)))

    def rows(self) -> list[Sample]:
        """The same, a Sample each."""
        return [Sample(*row) for row in zip(*(getattr(self, name) for name in Sample._fields), strict=True)]


class RunResult(msgspec.Struct, kw_only=True):
    """Everything that a run measured; what could not be measured is None.

    Attributes:
        config: every setting, the seed included.
        machine: `live`, or `simulated` in virtual time.
        guest: what ran: `pagetide`, or a real kernel by its name and release.
        outcome: `complete`, `interrupted`, or a sentence that says what failed.
        duration_s: from the first operation to the end.
        bursts: one for each time that the application ate and freed.
        peak_resident_bytes: the most that the host held, of all samples.
        floor_resident_bytes: the least, of all samples.
        mean_resident_bytes: what the host held, on average over the time of the samples.
        mean_used_bytes: what the guest used, on the same average.
        return_lag_s_mean: how long a byte that came back had stayed with the host after it was free, on average: what
            the host held beyond what the guest used, added up over time, by how far its residency fell in all. What
            never came back counts in the first, so it makes this larger. None if residency never fell.
        return_lag_s_p50: how long the median byte that was free and still with the host stayed there until it was
            returned, or until the end of the run if it never was; the oldest is taken to go first.
        return_lag_s_p99: the same of all but a hundredth.
        return_lag_s_max: the same of the longest.
        unreturned_bytes: what was free in the guest and still with the host at the end.
        behind_s_max: how late an operation with a time of its own ran at most, outside of bursts; None if it had none.
        reports: elements of the reporting and inflate queues that the host served, or batches that it took by itself.
        reported_bytes: what was in them.
        discarded_bytes: what the discarding calls covered, by their own word.
        returned_bytes: how much of that the host held when it was discarded, and then no more, as far as it was read
            back: what reports brought.
        verified_bytes: what was read back as gone before the acknowledgement; what was never there is gone, too.
        checked_bytes: how much of the discarded was read back at all (`verify_share`).
        stamp_errors: pages in use that did not hold what the application had written.
        refaulted_bytes: what was touched again after it had been returned.
        isolated_blocks_max: most blocks out of the allocator at once.
        vcpu_wait_host_s_max: longest time that one vCPU waited for the host.
        vcpu_wait_host_s: how long vCPUs waited for it in all.
        vcpu_waits_host: how many times they did.
        false_ooms: allocations that failed although blocks that were out for reporting could have served them.
        dropped_hints: free blocks that a full array of hints did not take.
        dropped_bytes: the memory in those.
        zone_lock_wait_s_max: longest wait of anyone for the zone lock.
        zone_lock_wait_s: all waits for it together.
        zone_lock_hold_s_max: longest that reporting kept the zone lock at once, to isolate blocks or put them back.
        zone_lock_hold_s: how long it kept it in all.
        kicks: notifications of the device.
        passes: how many times the design looked for something to report; None for one that does not work in passes.
        idle_passes: those of them that found nothing.
        repeated_bytes: reported again, although nothing had touched them since they were reported before; None where
            the host takes memory by itself and the guest does not see it.
        guest_cpu_s: user and system time of the guest's process, from the first operation to the end; a hypervisor's
            own balloon is in it.
        reporting_cpu_s: what of that went into reporting: of the worker's thread, and of a synchronous vCPU's while it
            reports. What refaults cost is not in it.
        host_cpu_s: the same of the host's process; None if that is not one process that serves this guest alone.
        skipped_bytes: reported but not discarded, by reason.
        samples: what was read while it ran, as time series.
        started: when it began, as ISO 8601 has it, in UTC; None if that was not noted.
        versions: of pagetide and what it ran on (machine/versions.py), the kernel and the processor among them; None
            likewise.
    """

    config: RunConfig
    machine: Literal["live", "simulated"] = "live"
    guest: str = "pagetide"
    outcome: str
    duration_s: float
    bursts: list[Burst]
    peak_resident_bytes: int
    floor_resident_bytes: int
    mean_resident_bytes: int | None = None
    mean_used_bytes: int | None = None
    return_lag_s_mean: float | None = None
    return_lag_s_p50: float | None = None
    return_lag_s_p99: float | None = None
    return_lag_s_max: float | None = None
    unreturned_bytes: int | None = None
    behind_s_max: float | None = None
    isolated_blocks_max: int | None
    vcpu_wait_host_s_max: float | None
    vcpu_wait_host_s: float | None
    vcpu_waits_host: int | None
    false_ooms: int | None
    dropped_hints: int | None
    dropped_bytes: int | None
    zone_lock_wait_s_max: float | None
    zone_lock_wait_s: float | None = None
    zone_lock_hold_s_max: float | None = None
    zone_lock_hold_s: float | None = None
    kicks: int | None = None
    passes: int | None = None
    idle_passes: int | None = None
    repeated_bytes: int | None = None
    stamp_errors: int | None
    refaulted_bytes: int | None
    reports: int | None
    reported_bytes: int | None
    discarded_bytes: int | None
    returned_bytes: int | None = None
    checked_bytes: int | None
    verified_bytes: int | None
    skipped_bytes: dict[str, int] | None
    guest_cpu_s: float | None
    reporting_cpu_s: float | None = None
    host_cpu_s: float | None
    samples: Samples
    started: str | None = None
    versions: dict[str, str] | None = None

    @property
    def verified_disagrees(self) -> bool:
        """Whether the kernel contradicted a discard: bytes that were read back and found still there."""
        return self.verified_bytes != self.checked_bytes
