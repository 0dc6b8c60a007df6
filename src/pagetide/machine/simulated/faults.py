"""How long the host's work takes while it is stopped or slow (S9, S12)."""

from collections.abc import Sequence

from pagetide.machine.faults import Fault


def finish_s(start_s: float, work_s: float, faults: Sequence[Fault]) -> float:
    """When work that would take `work_s` is done if it is begun at `start_s`.

    Args:
        start_s: in virtual time.
        work_s: how long it takes a host that runs at full speed.
        faults: `stop` and `slow`, their `start_s` in virtual time as well.
    """
    assert work_s >= 0
    now_s = start_s
    edges_s = sorted({edge for f in faults for edge in (f.start_s, f.start_s + f.for_s) if edge > start_s})
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
        if fault.start_s <= now_s < fault.start_s + fault.for_s:
            speed = 0.0 if fault.kind == "stop" else speed / fault.factor
    return speed
