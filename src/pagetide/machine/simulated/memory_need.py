"""How much memory a simulated run takes, told before it begins: from the guest's size and its workload."""

from pagetide.guest.allocator.zone_layout import RECORD_WORDS, arena_bytes
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.memory.available import address_space_bytes, available_bytes
from pagetide.units import PAGE_SIZE_BYTES, format_size
from pagetide.workload.day import SERVER_SHARE
from pagetide.workload.mix import mean_pages, parse_mix
from pagetide.workload.stream import PIECE_OPERATIONS

_PROGRAM_BYTES = 96 << 20
"""Kernels, samples and what else does not depend on the guest; what is imported is there before."""

_RECORD_BYTES = 4 * RECORD_WORDS
_METADATA_BYTES_PER_PAGE = 1
_FREE_SHARE = 0.25
"""Of page records, those on memory pages that a zone touches at once: each largest block's first one."""

_BLOCK_BYTES = 14
"""A block that is held: its order in the plan, and its slot."""

_REQUEST_BYTES = 48
"""A block whose birth and death are drawn; more while they are sorted."""

_PIECE_BYTES = 96 * PIECE_OPERATIONS
"""What a vCPU's operations of the moment take, and making them."""


def needed_bytes(config: RunConfig) -> int:
    """About how much memory a run of these settings takes, besides what a stream from a file does."""
    pages = config.ram_bytes // PAGE_SIZE_BYTES
    held = min(1.0, config.eat_share * (1 + SERVER_SHARE)) if config.stream is None else 1.0
    records_bytes = pages * _RECORD_BYTES * (_FREE_SHARE + (1 - _FREE_SHARE) * held)
    memory_bytes = records_bytes + pages * held * _METADATA_BYTES_PER_PAGE
    return _PROGRAM_BYTES + int(memory_bytes) + _work_bytes(config, pages * held) + config.vcpus * _PIECE_BYTES


def _work_bytes(config: RunConfig, held_pages: float) -> int:
    """What the plan of a workload takes, and its slots."""
    if config.stream is not None:
        return 0
    blocks = held_pages / mean_pages(parse_mix(config.mix))
    made = {"burst": config.bursts, "day": config.bursts}.get(config.workload, 0)
    drawn = {"web": blocks, "database": 3 * blocks, "churn": 2 * blocks}.get(config.workload, 0.0)
    if config.workload in ("web", "churn", "day"):
        drawn += config.rate_per_s * config.duration_s
    return int(blocks * (_BLOCK_BYTES + made) + drawn * _REQUEST_BYTES)


def check_memory(config: RunConfig) -> None:
    """Look whether a run fits into this machine's memory, and into this process's limits.

    Raises:
        ConfigError: it does not; the sentence says how much it needs.
    """
    need_bytes, room_bytes = needed_bytes(config), available_bytes()
    if need_bytes > room_bytes:
        raise ConfigError(f"{_sentence(need_bytes)}, and {format_size(room_bytes)} are available")
    arena = arena_bytes(config.ram_bytes // PAGE_SIZE_BYTES, config.vcpus, config.pcp_max_pages)
    addresses, left_bytes = need_bytes + config.ram_bytes + arena, address_space_bytes()
    if left_bytes is not None and addresses > left_bytes:
        raise ConfigError(
            f"simulating a guest of {format_size(config.ram_bytes)} takes about {format_size(addresses)} of addresses, "
            f"and the limit of this process's (ulimit -v) leaves {format_size(left_bytes)}"
        )


def ran_out(config: RunConfig) -> str:
    """What is said of a run that ran out of memory."""
    return f"there is not enough memory: {_sentence(needed_bytes(config))}"


def _sentence(need_bytes: int) -> str:
    return f"simulating this guest takes about {format_size(need_bytes)} of memory"
