"""What a zone is told when a design is switched on and off."""

import numpy as np

from pagetide.guest.allocator.candidates import map_reset
from pagetide.guest.allocator.isolate import reserve_spares
from pagetide.guest.allocator.request import configure, request
from pagetide.guest.allocator.zone import NEVER, Zone, cool_ticks
from pagetide.guest.allocator.zone_layout import (
    COOL_TICKS,
    HINT_BLOCKS_MAX,
    HINT_COUNT,
    HINTS,
    HINTS_MAX,
    IN_FLIGHT_MAX_PAGES,
    KEEP_MARKS,
    KEEP_WHOLE_MARKS,
    NOTIFY_SPLITS,
    NR_PAGES,
    NR_VCPUS,
    RECORD_NOTHING,
    RECORDING,
    REPORTING_ORDER,
    SPARES_MAX,
    SPARES_MAX_BLOCKS,
    SYNC_HINTS,
    WAKE_BLOCKS,
    vcpu_base,
)
from pagetide.guest.reporting.settings import ReportingSettings, Wake
from pagetide.units import ORDER_MAX, PAGE_SIZE_BYTES

_WAKES_NEVER = 1 << 40
_BY_THE_CLOCK = 0
_SPARE_SHARE_MAX = 8


def switch_on(
    zone: Zone,
    settings: ReportingSettings,
    *,
    recording: int = RECORD_NOTHING,
    keep_marks: int = KEEP_WHOLE_MARKS,
    notify_splits: bool = False,
    wake: Wake = "merge",
    sync_hints: int = 0,
) -> None:
    """Tell the zone what the free path is to do for a design, and request a first pass.

    Args:
        zone: the zone, switched off.
        settings: how the design is tuned.
        recording: what the free path records.
        keep_marks: what becomes of the Reported mark in splits and merges, a value of KEEP_MARKS.
        notify_splits: whether the split of a reported block is a request; only where marks are dropped.
        wake: the design's own answer to what makes the worker run.
        sync_hints: hints with which a vCPU stops to report; 0 if it never does.
    """
    words = zone.words
    assert 0 <= settings.order <= ORDER_MAX
    assert words[RECORDING] == RECORD_NOTHING
    map_reset(words)
    wake_blocks = {"merge": 1, "threshold": settings.wake_blocks, "timer": _BY_THE_CLOCK}[settings.wake or wake]
    changes = {
        HINTS: 0,
        HINTS_MAX: HINT_BLOCKS_MAX if sync_hints else settings.hints_max,
        SYNC_HINTS: sync_hints,
        COOL_TICKS: cool_ticks(settings.cool_s),
        IN_FLIGHT_MAX_PAGES: settings.in_flight_max_bytes // PAGE_SIZE_BYTES if settings.oom == "cap" else 0,
        KEEP_MARKS: max(keep_marks, KEEP_WHOLE_MARKS) if settings.oom == "swap" else keep_marks,
        NOTIFY_SPLITS: notify_splits,
        WAKE_BLOCKS: _WAKES_NEVER if sync_hints else wake_blocks,
        REPORTING_ORDER: settings.order,
    }
    changes |= {vcpu_base(vcpu) + HINT_COUNT: 0 for vcpu in range(int(words[NR_VCPUS]))}
    _configure(zone, changes)
    reserve_missing_spares(zone, settings)
    _configure(zone, {RECORDING: recording})
    request(words)


def reserve_missing_spares(zone: Zone, settings: ReportingSettings) -> None:
    """For `swap`, take the spare blocks that the zone could not give so far."""
    wanted = spare_blocks(int(zone.words[NR_PAGES]), settings)
    if settings.oom == "swap" and zone.words[SPARES_MAX] < wanted:
        reserve_spares(zone.words, zone.pages, wanted)


def switch_off(zone: Zone) -> None:
    """Tell the zone that nothing is to be recorded or requested any more, and that the spares come back."""
    reserve_spares(zone.words, zone.pages, 0)
    _configure(
        zone,
        {REPORTING_ORDER: NEVER, RECORDING: RECORD_NOTHING, COOL_TICKS: 0, IN_FLIGHT_MAX_PAGES: 0, SYNC_HINTS: 0},
    )


def _configure(zone: Zone, changes: dict[int, int]) -> None:
    configure(zone.words, np.array(list(changes), np.int64), np.array(list(changes.values()), np.int64))


def spare_blocks(nr_pages: int, settings: ReportingSettings) -> int:
    """How many blocks of the reporting order `swap` keeps: a full batch of them, and never less than a largest block.

    At most `in_flight_max_bytes`, and at most an eighth of the zone.
    """
    pages = min(
        settings.capacity << settings.order,
        settings.in_flight_max_bytes // PAGE_SIZE_BYTES,
        nr_pages // _SPARE_SHARE_MAX,
    )
    return min(max(pages, 1 << ORDER_MAX) >> settings.order, SPARES_MAX_BLOCKS)
