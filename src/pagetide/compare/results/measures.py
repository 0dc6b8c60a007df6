"""What a comparison compares: each measure's name, unit and meaning, and how it is read off a run. Declared once."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from pagetide.compare.results.records import Run
from pagetide.units import GIB, MIB

Reader = Callable[[Run, Run | None], float | None]
"""Reads a measure off a run; the second run is that of `off` on the same work with the same seed, if there is one."""


class Measure(NamedTuple):
    """One column of the tables.

    Attributes:
        name: in JSON and CSV, with its unit last.
        group: heading that it shares with its neighbours.
        heading: within the group.
        unit: for people; empty for a count.
        meaning: one sentence.
        better: which is the better end; None where neither is.
        read: reads it off a run.
    """

    name: str
    group: str
    heading: str
    unit: str
    meaning: str
    better: Literal["low", "high"] | None
    read: Reader


def _figure(name: str, unit: float = 1.0) -> Reader:
    def read(run: Run, _: Run | None) -> float | None:
        value = run.figures.get(name)
        return None if value is None else value / unit

    return read


def _footprint_of_off(run: Run, off: Run | None) -> float | None:
    """None without a control."""
    held = run.figures.get("mean_resident_bytes")
    held_off = None if off is None else off.figures.get("mean_resident_bytes")
    return None if held is None or not held_off else 100 * held / held_off


def cpu_s(run: Run) -> float | None:
    """CPU time of guest and host together, in seconds; None if one of them is not known."""
    guest_s, host_s = run.figures.get("guest_cpu_s"), run.figures.get("host_cpu_s")
    return None if guest_s is None or host_s is None else guest_s + host_s


def kept_bytes(run: Run) -> float | None:
    """What the host held beyond what the guest used, on average."""
    held, used = run.figures.get("mean_resident_bytes"), run.figures.get("mean_used_bytes")
    return None if held is None or used is None else held - used


MEASURES = (
    Measure(
        "footprint_gib", "footprint", "mean", "GiB",
        "what the host held for the guest, averaged over the time of the run", "low",
        _figure("mean_resident_bytes", GIB),
    ),
    Measure(
        "footprint_of_off_percent", "footprint", "of off", "%",
        "the same as a share of what it held without reporting, on the same work with the same seed", "low",
        _footprint_of_off,
    ),
    Measure(
        "lag_p50_s", "lag, free to returned", "p50", "s",
        "how long the median byte that was free stayed with the host; what never came back counts with its age at the "
        "end", "low", _figure("return_lag_s_p50"),
    ),
    Measure(
        "lag_p99_s", "lag, free to returned", "p99", "s", "the same of all but a hundredth of the bytes", "low",
        _figure("return_lag_s_p99"),
    ),
    Measure(
        "lag_max_s", "lag, free to returned", "worst", "s", "the same of the byte that stayed longest", "low",
        _figure("return_lag_s_max"),
    ),
    Measure(
        "missed_hints", "hints missed", "blocks", "",
        "free blocks that were dropped, since the guest's record of them was full", "low", _figure("dropped_hints"),
    ),
    Measure(
        "unreturned_mib", "not returned", "at the end", "MiB",
        "what was free in the guest and still with the host at the end", "low", _figure("unreturned_bytes", MIB),
    ),
    Measure(
        "stalls", "vCPU stalls", "count", "", "how many times a vCPU waited for the host", "low",
        _figure("vcpu_waits_host"),
    ),
    Measure(
        "stalls_s", "vCPU stalls", "total", "s", "how long vCPUs waited for the host in all", "low",
        _figure("vcpu_wait_host_s"),
    ),
    Measure(
        "stall_max_s", "vCPU stalls", "longest", "s", "the longest time that one vCPU waited for the host", "low",
        _figure("vcpu_wait_host_s_max"),
    ),
    Measure(
        "lock_hold_ms", "zone lock", "held", "ms", "how long reporting held the zone lock in all", "low",
        _figure("zone_lock_hold_s", 1e-3),
    ),
    Measure(
        "lock_hold_max_us", "zone lock", "held, longest", "µs", "the longest that it held it at once", "low",
        _figure("zone_lock_hold_s_max", 1e-6),
    ),
    Measure(
        "lock_wait_ms", "zone lock", "waited", "ms", "how long anyone waited for the zone lock in all", "low",
        _figure("zone_lock_wait_s", 1e-3),
    ),
    Measure(
        "isolated_blocks_max", "isolated", "at most", "", "blocks out of the allocator at once, at most", "low",
        _figure("isolated_blocks_max"),
    ),
    Measure(
        "false_ooms", "false OOMs", "count", "",
        "allocations that failed although blocks that were out for reporting could have served them", "low",
        _figure("false_ooms"),
    ),
    Measure(
        "reports", "traffic", "reports", "", "elements that the device took from a queue", "low", _figure("reports"),
    ),
    Measure(
        "returned_gib", "traffic", "returned", "GiB",
        "what the host held of the reported memory when it discarded it, and then no more", None,
        _figure("returned_bytes", GIB),
    ),
    Measure("kicks", "traffic", "kicks", "", "notifications of the device", "low", _figure("kicks")),
    Measure(
        "repeated_mib", "traffic", "repeated", "MiB",
        "reported again, although nothing had touched it since it was reported before", "low",
        _figure("repeated_bytes", MIB),
    ),
    Measure(
        "refaulted_gib", "refaults", "memory", "GiB", "what was touched again after it had been returned", "low",
        _figure("refaulted_bytes", GIB),
    ),
    Measure(
        "guest_cpu_s", "CPU", "guest", "s", "CPU time of the guest, its workload included", "low",
        _figure("guest_cpu_s"),
    ),
    Measure("host_cpu_s", "CPU", "host", "s", "CPU time of the host", "low", _figure("host_cpu_s")),
)  # fmt: skip
"""The columns of the tables, in their order."""
