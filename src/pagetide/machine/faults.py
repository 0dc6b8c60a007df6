"""What goes wrong on purpose in a run: the host faults of S9, S10, S12 and S14, by name, as data.

Times are on the stream's clock (workload/stream.py), so that a fault meets the same operation on a fast machine and on
a slow one. How long a fault lasts is real time, or the virtual time of a simulated machine.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["stop", "slow", "off", "ring-full", "mmlock", "mmlock-split", "ring"]

FACTOR_MAX = 1000.0
RING_ENTRIES_MAX = 1024
SECONDS_MAX = 86400.0
"""No time of a fault is above a day."""

FORMS: dict[Kind, str] = {
    "stop": "stop@T:D",
    "slow": "slow@T:D:FACTOR",
    "off": "off@T:D",
    "ring-full": "ring-full@T:D",
    "mmlock": "mmlock",
    "mmlock-split": "mmlock-split",
    "ring": "ring=ENTRIES",
}
"""How each fault is written."""

_FAULT = re.compile(r"(?P<kind>[a-z-]+)(?:@(?P<window>[^=]*)|=(?P<entries>[^@]*))?")


class FaultError(ValueError):
    """A fault that there is not; the message is one sentence that says what there is."""


class Fault(NamedTuple):
    """One fault.

    Attributes:
        kind: `stop`: the host's process does not run. `slow`: it takes `factor` times as long for everything. `off`:
            reporting is switched off. `ring-full`: the reporting queue has no room, so that a report fails at once.
            `mmlock`: a thread of the host's process holds its mm lock for writing as often as it can; `mmlock-split`:
            and the guest's RAM is two VMAs there. `ring`: the reporting queue has `entries` entries and no indirect
            tables, so that a report holds at most as many blocks.
        start_s: when it begins on the stream's clock; 0 for those that last for the whole run.
        for_s: how long it lasts; infinite for those.
        factor: of `slow`.
        entries: of `ring`.
    """

    kind: Kind
    start_s: float = 0.0
    for_s: float = math.inf
    factor: float = 1.0
    entries: int = 0


def parse_fault(text: str) -> Fault:
    """Read a fault as it is written on the command line.

    Raises:
        FaultError: there is no such fault, or it is written wrongly.
    """
    match = _FAULT.fullmatch(text)
    kind = next((form for form in FORMS if match and match["kind"] == form), None)
    if match is None or kind is None:
        raise FaultError(f"{text!r} is no fault; there are {', '.join(FORMS.values())}")
    try:
        return _read(kind, match["window"], match["entries"])
    except ValueError as error:
        why = f": {error}" if isinstance(error, FaultError) else ""
        raise FaultError(f"the fault {text!r} is not of the form {FORMS[kind]}{why}") from None


def parse_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """Read all faults of a run, in the order of their beginnings.

    Raises:
        FaultError: one cannot be read, two of a kind overlap, or the host is to be slow while it is stopped.
    """
    faults = tuple(sorted(map(parse_fault, texts), key=lambda fault: fault.start_s))
    for position, first in enumerate(faults):
        for second in faults[position + 1 :]:
            if _family(first) == _family(second) and second.start_s < first.start_s + first.for_s:
                raise FaultError(f"the faults {first.kind} and {second.kind} are both on at {second.start_s:g} s")
    return faults


def of_kind(faults: Sequence[Fault], *kinds: Kind) -> tuple[Fault, ...]:
    """Those of these kinds."""
    return tuple(fault for fault in faults if fault.kind in kinds)


def ring_entries(faults: Sequence[Fault]) -> int | None:
    """How many entries the reporting queue is to have; None if as many as it likes."""
    return next((fault.entries for fault in faults if fault.kind == "ring"), None)


def _family(fault: Fault) -> str:
    return {"slow": "stop", "mmlock-split": "mmlock"}.get(fault.kind, fault.kind)


def _read(kind: Kind, window: str | None, entries: str | None) -> Fault:
    if kind == "ring":
        return Fault(kind, entries=_entries(entries))
    if kind in ("mmlock", "mmlock-split"):
        if window is not None or entries is not None:
            raise FaultError("it lasts for the whole run")
        return Fault(kind)
    start, length, *factor = (window or "").split(":")
    if len(factor) != (kind == "slow"):
        raise ValueError
    times = _factor(factor[0]) if factor else 1.0
    return Fault(kind, _seconds(start), _seconds(length, above=0.0), times)


def _seconds(text: str, above: float = -1.0) -> float:
    seconds = float(text)
    if not above < seconds <= SECONDS_MAX or seconds < 0:
        raise FaultError(f"a time must be from 0 s to a day, not {text!r}")
    return seconds


def _factor(text: str) -> float:
    factor = float(text)
    if not 1 < factor <= FACTOR_MAX:
        raise FaultError(f"the factor must be above 1 and at most {FACTOR_MAX:g}, not {text}")
    return factor


def _entries(text: str | None) -> int:
    entries = int(text or "")
    if not 1 <= entries <= RING_ENTRIES_MAX or entries & (entries - 1):
        raise FaultError(f"the entries must be a power of two from 1 to {RING_ENTRIES_MAX}, not {text}")
    return entries
