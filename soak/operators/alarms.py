"""What a Prometheus with the shipped rules said during a shift, held against what was injected."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from soak.operators.timetable import Timetable
from soak.operators.yard import Injected
from tests.operate.metrics.prometheus import Prometheus

_LATE_S = 20.0
"""What scrapes, rules and the guests themselves may take beyond the minutes of the rules."""
_EARLY_S = 3.0
"""Between two looks at the metrics' own process, which answers the same within a second, and scrapes."""


class Firing(NamedTuple):
    """A time in which an alert fired, by the wall clock."""

    alert: str
    guest: str
    start_s: float
    end_s: float


class Judged(NamedTuple):
    """A fault that was injected, and the alert that fired for it."""

    injected: Injected
    firing: Firing | None


def fired(prometheus: Prometheus, start_s: float, end_s: float, interval_s: float) -> list[Firing]:
    """All that fired between two times."""
    found = prometheus.ask(
        "query_range", query='ALERTS{alertstate="firing"}', start=f"{start_s}", end=f"{end_s}", step=f"{interval_s}"
    )["result"]
    return [
        Firing(series["metric"]["alertname"], series["metric"].get("guest", ""), first, last)
        for series in found
        for first, last in _stretches([float(at) for at, _ in series["values"]], interval_s)
    ]


def _stretches(times_s: Sequence[float], interval_s: float) -> Iterable[tuple[float, float]]:
    start_s = before_s = times_s[0]
    for now_s in times_s[1:]:
        if now_s - before_s > 1.5 * interval_s:
            yield start_s, before_s
            start_s = now_s
        before_s = now_s
    yield start_s, before_s


def judge(
    injected: Sequence[Injected], firings: Sequence[Firing], timetable: Timetable
) -> tuple[list[Judged], list[str]]:
    """Of each fault the alert that fired for it, and what is not so, as sentences."""
    judged, wrong = [], []
    left: Mapping[tuple[str, str], list[Firing]] = defaultdict(list)
    for firing in firings:
        left[firing.alert, firing.guest].append(firing)
    for one in sorted(injected, key=lambda one: one.began_s):
        if not one.began_s:
            wrong.append(f"{one.guest}: {one.fault.name}: was not injected")
            continue
        first_s, last_s, gone_s = _bounds(one, timetable)
        mine = [firing for firing in left[one.fault.alert, one.guest] if first_s <= firing.start_s <= last_s]
        judged.append(Judged(one, mine[0] if mine else None))
        if not mine:
            wrong.append(f"{one.guest}: {one.fault.name}: {one.fault.alert} did not fire in time")
        elif mine[0].end_s > gone_s:
            wrong.append(
                f"{one.guest}: {one.fault.alert} fired for {mine[0].end_s - one.ended_s:.0f} s after the fault"
            )
        for firing in mine[:1]:
            left[one.fault.alert, one.guest].remove(firing)
    wrong += [
        f"{firing.guest}: {firing.alert} fired without a fault, at {firing.start_s:.0f}, "
        f"for {firing.end_s - firing.start_s:.0f} s"
        for firings in left.values()
        for firing in firings
    ]
    return judged, wrong


def _bounds(injected: Injected, timetable: Timetable) -> tuple[float, float, float]:
    """When its alert may begin to fire at first and at last, and until when it may."""
    fault = injected.fault
    first_s, last_s = (injected.began_s + timetable.seconds(minutes) for minutes in fault.fires_min)
    gone_s = injected.ended_s + timetable.seconds(fault.ends_min)
    return first_s - _EARLY_S, last_s + _LATE_S, gone_s + _LATE_S
