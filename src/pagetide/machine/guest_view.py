"""What can be known of a guest from outside: all of ours, through its arena; little of a real one."""

import mmap
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.guest.allocator.zone_layout import (
    BALLOON_PAGES,
    DROPPED_HINTS,
    DROPPED_PAGES,
    FALSE_OOMS,
    FREE_PAGES,
    IDLE_PASSES,
    ISOLATED_BLOCKS_MAX,
    ISOLATED_PAGES,
    KICKS,
    LOCK_HOLD_NS,
    LOCK_HOLD_NS_MAX,
    LOCK_WAIT_NS,
    LOCK_WAIT_NS_MAX,
    PASSES,
    PCP_COUNT,
    REFAULTED_PAGES,
    REPEATED_PAGES,
    REPORTED_PAGES,
    STAMP_ERRORS,
    WAIT_HOST_NS,
    WAIT_HOST_NS_MAX,
    WAITS_HOST,
    frame_table_base,
    vcpu_base,
    words_count,
)
from pagetide.machine.config import RunConfig
from pagetide.memory.frame_table import FRAME_PAGES, FRAMES, STATE_MASK, TAKEN, TAKING_MAX
from pagetide.units import PAGE_SIZE_BYTES


class GuestMemoryNow(NamedTuple):
    """A guest's memory at one moment, as in `Sample`."""

    used_bytes: int
    free_bytes: int
    reported_bytes: int | None
    refaulted_bytes: int | None = None


class GuestTotals(NamedTuple):
    """What a guest counted over a run, as in `RunResult`; None where it does not tell."""

    isolated_blocks_max: int | None = None
    vcpu_wait_host_s_max: float | None = None
    zone_lock_wait_s_max: float | None = None
    zone_lock_wait_s: float | None = None
    zone_lock_hold_s_max: float | None = None
    zone_lock_hold_s: float | None = None
    kicks: int | None = None
    passes: int | None = None
    idle_passes: int | None = None
    repeated_bytes: int | None = None
    vcpu_wait_host_s: float | None = None
    vcpu_waits_host: int | None = None
    false_ooms: int | None = None
    dropped_hints: int | None = None
    dropped_bytes: int | None = None
    stamp_errors: int | None = None
    refaulted_bytes: int | None = None


class GuestView(Protocol):
    """A guest, seen from outside."""

    def memory(self) -> GuestMemoryNow:
        """How its memory is now."""

    def totals(self) -> GuestTotals:
        """What it has counted so far."""


class ArenaView:
    """Our guest: reads the zone's arena, and never writes it."""

    def __init__(self, config: RunConfig, arena: mmap.mmap | npt.NDArray[np.int64]) -> None:
        """Take the arena of a guest with these settings, or its words."""
        self._words = np.frombuffer(
            arena, np.int64, words_count(config.ram_bytes // PAGE_SIZE_BYTES, config.vcpus, config.pcp_max_pages)
        )
        self._vcpu_bases = np.array([vcpu_base(vcpu) for vcpu in range(config.vcpus)])
        self._listed_at = [vcpu_base(vcpu) + PCP_COUNT for vcpu in range(config.vcpus)]
        self._refaulted_at = [vcpu_base(vcpu) + REFAULTED_PAGES for vcpu in range(config.vcpus)]
        self._taken_by_host = config.design == "shared"
        self._in_passes = config.design not in ("off", "shared", "balloon")
        self._ram_pages = config.ram_bytes // PAGE_SIZE_BYTES
        table = frame_table_base(config.vcpus)
        self._taking_max = self._words[table + TAKING_MAX :][:1]
        self._frames = self._words[table + FRAMES :][: self._ram_pages // FRAME_PAGES]

    def memory(self) -> GuestMemoryNow:
        """How its memory is now; isolated blocks are neither used nor free, ballooned ones free and reported."""
        word = self._words.item
        balloon_pages = word(BALLOON_PAGES)
        free_pages = balloon_pages + word(FREE_PAGES) + sum(map(word, self._listed_at))
        used_pages = self._ram_pages - free_pages - word(ISOLATED_PAGES)
        reported_pages = balloon_pages + word(REPORTED_PAGES)
        if self._taken_by_host:
            reported_pages += self._taken_pages()
        pages = (used_pages, free_pages, reported_pages, self._refaulted_pages())
        return GuestMemoryNow(*(count * PAGE_SIZE_BYTES for count in pages))

    def _taken_pages(self) -> int:
        return int(np.count_nonzero(self._frames & STATE_MASK == TAKEN)) * FRAME_PAGES

    def _refaulted_pages(self) -> int:
        return sum(map(self._words.item, self._refaulted_at))

    def totals(self) -> GuestTotals:
        """What it has counted so far."""
        words, bases = self._words, self._vcpu_bases
        return GuestTotals(
            isolated_blocks_max=int(words[ISOLATED_BLOCKS_MAX] + self._taking_max[0]),
            vcpu_wait_host_s_max=float(words[bases + WAIT_HOST_NS_MAX].max()) / 1e9,
            vcpu_wait_host_s=float(words[bases + WAIT_HOST_NS].sum()) / 1e9,
            vcpu_waits_host=int(words[bases + WAITS_HOST].sum()),
            false_ooms=int(words[FALSE_OOMS]),
            dropped_hints=int(words[DROPPED_HINTS]),
            dropped_bytes=int(words[DROPPED_PAGES]) * PAGE_SIZE_BYTES,
            zone_lock_wait_s_max=float(words[LOCK_WAIT_NS_MAX]) / 1e9,
            zone_lock_wait_s=float(words[LOCK_WAIT_NS]) / 1e9,
            zone_lock_hold_s_max=float(words[LOCK_HOLD_NS_MAX]) / 1e9,
            zone_lock_hold_s=float(words[LOCK_HOLD_NS]) / 1e9,
            kicks=int(words[KICKS]),
            passes=int(words[PASSES]) if self._in_passes else None,
            idle_passes=int(words[IDLE_PASSES]) if self._in_passes else None,
            repeated_bytes=None if self._taken_by_host else int(words[REPEATED_PAGES]) * PAGE_SIZE_BYTES,
            stamp_errors=int(words[bases + STAMP_ERRORS].sum()),
            refaulted_bytes=self._refaulted_pages() * PAGE_SIZE_BYTES,
        )
