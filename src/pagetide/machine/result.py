"""What a run measured: the structure of its JSON."""

from typing import NamedTuple

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
        return_lag_s: from the last free until residency was within 2 % of RAM of the run's floor; None if it never was.
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


class Samples(msgspec.Struct, kw_only=True):
    """Time series, one entry a sample in each column.

    Attributes:
        t_s: seconds since the run's clock started.
        guest_used_bytes: what the guest has allocated.
        guest_free_bytes: what its allocator could hand out; isolated blocks belong to neither.
        reported_bytes: free memory whose blocks are marked reported; None for a guest that does not tell.
        host_resident_bytes: what the host really holds for the guest, read from the memory file.
    """

    t_s: list[float] = []
    guest_used_bytes: list[int] = []
    guest_free_bytes: list[int] = []
    reported_bytes: list[int | None] = []
    host_resident_bytes: list[int] = []

    def rows(self) -> list[Sample]:
        """The same, a Sample each."""
        return [Sample(*row) for row in zip(*(getattr(self, name) for name in Sample._fields), strict=True)]


class RunResult(msgspec.Struct, kw_only=True):
    """Everything that a run measured; what could not be measured is None.

    Attributes:
        config: every setting, the seed included.
        guest: what ran: `pagetide`, or a real kernel by its name and release.
        outcome: `complete`, `interrupted`, or a sentence that says what failed.
        duration_s: from the first operation to the end.
        discarded_bytes: what the discarding calls covered, by their own word.
        verified_bytes: what was read back as gone before the acknowledgement.
        checked_bytes: how much of the discarded was read back at all (`verify_share`).
        refaulted_bytes: first touches of memory that had been discarded.
        isolated_blocks_max: most blocks out of the allocator at once.
        vcpu_wait_host_s_max: longest time that one vCPU waited for the host.
        vcpu_wait_host_s: how long vCPUs waited for it in all.
        vcpu_waits_host: how many times they did.
        false_ooms: allocations that failed although blocks that were out for reporting could have served them.
        dropped_hints: free blocks that a full array of hints did not take.
        dropped_bytes: the memory in those.
        zone_lock_wait_s_max: longest wait of anyone for the zone lock.
        guest_cpu_s: user and system time of the guest's process, from the first operation to the end; a hypervisor's
            own balloon is in it.
        host_cpu_s: the same of the host's process; None if that is not one process that serves this guest alone.
        skipped_bytes: reported but not discarded, by reason.
    """

    config: RunConfig
    guest: str = "pagetide"
    outcome: str
    duration_s: float
    bursts: list[Burst]
    peak_resident_bytes: int
    floor_resident_bytes: int
    isolated_blocks_max: int | None
    vcpu_wait_host_s_max: float | None
    vcpu_wait_host_s: float | None
    vcpu_waits_host: int | None
    false_ooms: int | None
    dropped_hints: int | None
    dropped_bytes: int | None
    zone_lock_wait_s_max: float | None
    stamp_errors: int | None
    refaulted_bytes: int | None
    reports: int | None
    reported_bytes: int | None
    discarded_bytes: int | None
    checked_bytes: int | None
    verified_bytes: int | None
    skipped_bytes: dict[str, int] | None
    guest_cpu_s: float | None
    host_cpu_s: float | None
    samples: Samples

    @property
    def verified_disagrees(self) -> bool:
        """Whether the kernel contradicted a discard: bytes that were read back and found still there."""
        return self.verified_bytes != self.checked_bytes
