"""The report's words for what goes wrong in a condition."""

import math
from collections.abc import Sequence

from pagetide.machine.faults import Fault, Kind, parse_faults

_FAULTS: dict[Kind, str] = {
    "stop": "the host stands still",
    "slow": "the host is {factor:g} times slower",
    "off": "reporting is switched off",
    "ring-full": "the reporting queue has no room",
    "mmlock": "a thread of the host holds its mm lock for writing all the time",
    "mmlock-split": "the mm lock is held for writing all the time, and RAM is two VMAs",
    "ring": "the reporting queue has {entries} entries and no indirect tables",
}

_WHOLE_S = 60.0
"""A fault from the beginning that lasts as long as this, or longer, is there for the whole run."""


def fault_words(texts: Sequence[str], *, brief: bool = False) -> str:
    """What goes wrong, for people, and unless it is to be brief, when; faults are as `pagetide run --fault` has them.

    Raises:
        FaultError: one cannot be read.
    """
    return " and ".join(_words(fault, brief) for fault in parse_faults(texts)) or "no fault"


def _words(fault: Fault, brief: bool) -> str:
    said = _FAULTS[fault.kind].format(factor=fault.factor, entries=fault.entries)
    return (
        said if brief or _is_for_all_time(fault) else f"{said} for {fault.for_s:g} s, {fault.start_s:g} s into the work"
    )


def _is_for_all_time(fault: Fault) -> bool:
    return math.isinf(fault.for_s) or (fault.start_s == 0 and fault.for_s >= _WHOLE_S)
