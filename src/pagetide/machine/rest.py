"""What a design leaves with the host on purpose when all is done: known from the settings alone."""

from pagetide.machine.balloon_policy import reserve_pages
from pagetide.machine.config import RunConfig
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES

_WHY = {
    "sync": "does not fill a batch",
    "notify": "is below the threshold that wakes the worker",
    "notify-array": "is below the threshold that wakes the worker",
    "hybrid": "is below the threshold that wakes the worker",
    "balloon": "its host leaves the guest as a reserve",
}


def rest_blocks(config: RunConfig) -> int:
    """Blocks that the design may leave unreported at rest, as its `leftover_blocks_max`."""
    if config.design == "off":
        return 0
    if config.design == "sync":
        return (config.report_blocks_max - 1) * config.vcpus
    if config.design not in ("notify", "notify-array", "hybrid") or config.wake not in (None, "threshold"):
        return config.wake_blocks - 1 if config.wake == "threshold" else 0
    return (config.wake_blocks - 1) * (1 if config.design == "notify" else config.vcpus)


def rest_bytes(config: RunConfig) -> int:
    """The most that stays with the host by design, below the smallest reported block aside."""
    if config.design == "balloon":
        return reserve_pages(config.ram_bytes // PAGE_SIZE_BYTES) * PAGE_SIZE_BYTES
    return rest_blocks(config) * PAGE_SIZE_BYTES << ORDER_MAX


def why_it_rests(config: RunConfig) -> str:
    """What is to be said of it after `which`; empty for a design that leaves nothing."""
    return _WHY.get(config.design, "is below the threshold that wakes the worker") if rest_bytes(config) else ""
