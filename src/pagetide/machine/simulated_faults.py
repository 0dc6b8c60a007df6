"""What may go wrong on the host's side, as events, and how long its work takes with them (S9, S12)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

FaultKind = Literal["stop", "slow"]
"""`stop`: the host does nothing. `slow`: it is slower by a factor."""


class Fault(NamedTuple):
    """One event on the host's side.

    Attributes:
        at_s: when it begins.
        kind: what it is.
        duration_s: how long it lasts.
        factor: for `slow`, by how much.
    """

    at_s: float
    kind: FaultKind
    duration_s: float
    factor: float = 1.0


def finish_s(start_s: float, work_s: float, faults: Sequence[Fault]) -> float:
    """When work that would take `work_s` is done if it is begun at `start_s`."""
    assert work_s >= 0
    now_s = start_s
    edges_s = sorted({edge for f in faults for edge in (f.at_s, f.at_s + f.duration_s) if edge > start_s})
    for edge_s in edges_s:
        speed = _speed(now_s, faults)
        if speed * (edge_s - now_s) >= work_s and speed > 0:
            break
        work_s -= speed * (edge_s - now_s)
        now_s = edge_s
    return now_s + work_s / _speed(now_s, faults)


def _speed(now_s: float, faults: Sequence[Fault]) -> float:
    """How fast the host is at this time, 1 without any fault."""
    speed = 1.0
    for fault in faults:
        if fault.at_s <= now_s < fault.at_s + fault.duration_s:
            speed = 0.0 if fault.kind == "stop" else speed / fault.factor
    return speed
