"""A machine that runs nothing: it plays a script to its observer and answers a given result."""

from collections.abc import Callable

from pagetide.machine.config import RunConfig
from pagetide.machine.observer import Observer
from pagetide.machine.result import Burst, RunResult, Sample, Samples

MIB = 1 << 20


def result_of(config: RunConfig | None = None, **changes: object) -> RunResult:
    """A run in which all went well, with these fields changed."""
    t_s = [index / 10 for index in range(60)]
    used = [256 * MIB if 10 <= index < 30 else MIB for index in range(60)]
    held = [256 * MIB if 10 <= index < 45 else MIB for index in range(60)]
    samples = Samples(
        t_s=t_s,
        guest_used_bytes=used,
        guest_free_bytes=[512 * MIB - each for each in used],
        reported_bytes=[0] * 60,
        host_resident_bytes=held,
        refaulted_bytes=[0 if index < 30 else MIB for index in range(60)],
    )
    burst = Burst(
        eat_start_s=1.0,
        free_start_s=2.9,
        free_end_s=3.0,
        eaten_bytes=256 * MIB,
        returned_bytes=255 * MIB,
        verified_bytes=255 * MIB,
        return_lag_s=1.5,
    )
    fields: dict[str, object] = {
        "config": config or RunConfig(ram_bytes=512 * MIB),
        "outcome": "complete",
        "duration_s": 6.0,
        "bursts": [burst],
        "peak_resident_bytes": 256 * MIB,
        "floor_resident_bytes": MIB,
        "isolated_blocks_max": 32,
        "vcpu_wait_host_s_max": 0.0,
        "vcpu_wait_host_s": 0,
        "vcpu_waits_host": 0,
        "false_ooms": 0,
        "dropped_hints": 0,
        "dropped_bytes": 0,
        "zone_lock_wait_s_max": 0.00012,
        "stamp_errors": 0,
        "refaulted_bytes": 0,
        "reports": 8,
        "reported_bytes": 255 * MIB,
        "discarded_bytes": 255 * MIB,
        "returned_bytes": 254 * MIB,
        "checked_bytes": 255 * MIB,
        "verified_bytes": 255 * MIB,
        "skipped_bytes": {"unaligned": 0, "failed": 0},
        "guest_cpu_s": 1.2,
        "host_cpu_s": 0.3,
        "samples": samples,
    }
    return RunResult(**(fields | changes))  # type: ignore[arg-type]


class FakeMachine:
    """Plays a short run.

    Attributes:
        config: what it was made with.
    """

    def __init__(self, config: RunConfig, **changes: object) -> None:
        self.config = config
        self._changes = changes

    def run(self, observer: Observer) -> RunResult:
        result = result_of(self.config, **self._changes)
        observer.stage("starting the host and the guest")
        observer.stage("burst 1 of 1: eating")
        for sample in result.samples.rows():
            observer.sample(Sample(*sample))
        observer.warning("a warning")
        return result


def machine_with(**changes: object) -> Callable[[RunConfig], FakeMachine]:
    """A factory of machines whose result has these fields changed."""
    return lambda config: FakeMachine(config, **changes)
