"""Which settings do not fit a design: sentences for people. Imports nothing that compiles."""

from collections.abc import Callable

from pagetide.guest.reporting.settings import ReportingSettings
from pagetide.memory.frame_table import FRAME_ORDER

SYNC_CAPACITY_MAX = 512

POOL_DELAY_S_MIN = 0.1
"""From one pass of `pool` to the next at least: each looks at all that is kept."""


def misfit(design: str, settings: ReportingSettings) -> str | None:
    """Why a design cannot have these settings, as far as it is known before it is made; None if it can."""
    of_design = _MISFITS.get(design)
    return None if of_design is None else of_design(design, settings)


def _paceless(design: str, settings: ReportingSettings) -> str | None:
    if settings.pace != "drain":
        return f"only scan has Linux's pace; with {design} the pace must be drain, not {settings.pace}"
    return None


def _of_arrays(design: str, settings: ReportingSettings) -> str | None:
    if settings.wake in (None, "threshold") and settings.hints_max < settings.wake_blocks:
        return (
            f"with {design} a vCPU's array must have room for the {settings.wake_blocks} hints that wake the worker, "
            f"not for {settings.hints_max}"
        )
    return _paceless(design, settings)


def _of_sync(design: str, settings: ReportingSettings) -> str | None:
    if settings.cool_s != 0:
        return "with sync a vCPU reports what it has just freed, so there is no time to cool"
    if settings.wake is not None:
        return f"with sync a vCPU reports what it has freed itself, so there is nobody to wake by {settings.wake}"
    if settings.capacity > SYNC_CAPACITY_MAX:
        return f"with sync the capacity must be at most {SYNC_CAPACITY_MAX} blocks, not {settings.capacity}"
    return _paceless(design, settings)


def _of_pool(design: str, settings: ReportingSettings) -> str | None:
    if settings.cool_s != 0:
        return "with pool memory is reported once that pays, so there is no time to cool; keep says how much stays"
    if settings.delay_s is not None and settings.delay_s < POOL_DELAY_S_MIN:
        return (
            f"with pool each pass looks at all that is kept, so the delay must be at least {POOL_DELAY_S_MIN} s, "
            f"not {settings.delay_s} s"
        )
    if settings.order < settings.unit_order:
        return (
            f"with pool the host's pages are given back whole, so the order must be at least {settings.unit_order}, "
            f"not {settings.order}; with --split it may be smaller"
        )
    return _paceless(design, settings)


def _of_shared(_: str, settings: ReportingSettings) -> str | None:
    if settings.order != FRAME_ORDER:
        return f"with shared the host takes frames of 2 MiB, so the order must be {FRAME_ORDER}, not {settings.order}"
    if settings.pace != "drain":
        return f"with shared the host takes all that is free, so the pace must be drain, not {settings.pace}"
    if settings.wake not in (None, "timer"):
        return f"with shared the host looks by its own clock, so wake must be timer, not {settings.wake}"
    if settings.oom == "swap":
        return "with shared no block is isolated that a spare could stand for, so oom must be none, wait or cap"
    return None


def _of_balloon(_: str, settings: ReportingSettings) -> str | None:
    if settings.pace != "drain":
        return f"with balloon the guest follows what the host wants, so the pace must be drain, not {settings.pace}"
    if settings.wake not in (None, "timer"):
        return f"with balloon the guest looks by the clock, so wake must be timer, not {settings.wake}"
    if settings.oom not in ("none", "wait"):
        return f"with balloon oom must be wait, which deflates it, or none, not {settings.oom}"
    if settings.cool_s != 0:
        return "with balloon the guest does not choose by age, so there is no time to cool"
    return None


_MISFITS: dict[str, Callable[[str, ReportingSettings], str | None]] = {
    "sync": _of_sync,
    "notify": _paceless,
    "notify-array": _of_arrays,
    "hybrid": _of_arrays,
    "scan-restart": _paceless,
    "cursor": _paceless,
    "pool": _of_pool,
    "shared": _of_shared,
    "balloon": _of_balloon,
}
