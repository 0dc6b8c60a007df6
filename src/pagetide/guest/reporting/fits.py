"""Which settings do not fit a design: sentences for people. Imports nothing that compiles."""

from pagetide.memory.frame_table import FRAME_ORDER


def sync_misfit(cool_s: float) -> str | None:
    """Why vCPUs cannot report with this setting (ReportingSettings); None if they can."""
    if cool_s != 0:
        return "with sync a vCPU reports what it has just freed, so there is no time to cool"
    return None


def shared_misfit(order: int, pace: str, wake: str | None, oom: str) -> str | None:
    """Why a host cannot take frames itself with these settings (ReportingSettings); None if it can."""
    if order != FRAME_ORDER:
        return f"with shared the host takes frames of 2 MiB, so the order must be {FRAME_ORDER}, not {order}"
    if pace != "drain":
        return f"with shared the host takes all that is free, so the pace must be drain, not {pace}"
    if wake not in (None, "timer"):
        return f"with shared the host looks by its own clock, so wake must be timer, not {wake}"
    if oom == "swap":
        return "with shared no block is isolated that a spare could stand for, so oom must be none, wait or cap"
    return None


def balloon_misfit(pace: str, wake: str | None, oom: str, cool_s: float) -> str | None:
    """Why a balloon cannot have these settings (ReportingSettings); None if it can."""
    if pace != "drain":
        return f"with balloon the guest follows what the host wants, so the pace must be drain, not {pace}"
    if wake not in (None, "timer"):
        return f"with balloon the guest looks by the clock, so wake must be timer, not {wake}"
    if oom not in ("none", "wait"):
        return f"with balloon oom must be wait, which deflates it, or none, not {oom}"
    if cool_s != 0:
        return "with balloon the guest does not choose by age, so there is no time to cool"
    return None
