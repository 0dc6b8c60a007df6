"""The trade-off: which configurations nobody beats at both, and what is averaged over conditions."""

from hypothesis import given
from hypothesis import strategies as st

from pagetide.compare.report.tradeoff import Point, frontier, overall, tradeoffs_of
from pagetide.compare.results.conditions import conditions_of
from pagetide.compare.results.spread import Spread
from tests.compare.made_up_runs import made_up_repeats

GIB = 1 << 30


def point(cost: float, footprint: float) -> Point:
    """A point without a spread."""
    return Point("scan", f"{cost} {footprint}", Spread(cost, cost, cost, 1), Spread(footprint, footprint, footprint, 1))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_frontier_is_what_nobody_beats(places: list[tuple[int, int]]) -> None:
    """A place is on the frontier if none is at least as good at both and better at one."""
    best = {(one.cost.median, one.footprint.median) for one in frontier([point(*place) for place in places])}
    unbeaten = {
        place
        for place in places
        if not any(other != place and other[0] <= place[0] and other[1] <= place[1] for other in places)
    }
    assert best == unbeaten


def test_shares_are_averaged_over_the_conditions_of_a_configuration() -> None:
    """Half of off's footprint on one workload and all of it on another are three quarters."""
    runs = []
    for workload, held in (("burst", 1), ("web", 2)):
        for design, gib, cpu_s, refaulted in (("off", 2, 1.0, 0), ("scan", held, 3.0, 1), ("cursor", 2, 2.0, 1)):
            figures = {"mean_resident_bytes": gib * GIB, "guest_cpu_s": cpu_s, "refaulted_bytes": refaulted * GIB}
            runs += made_up_repeats({"workload": workload, "design": design}, figures, figures)
    cpu, _ = overall(conditions_of(runs))
    assert {one.label: (one.cost.median, one.footprint.median) for one in cpu.points} == {
        "off": (100, 100), "scan": (300, 75), "cursor": (200, 100),
    }  # fmt: skip
    assert not overall(conditions_of(runs[:6]))
    assert [len(one.points) for one in tradeoffs_of(conditions_of(runs)[0])] == [3, 3]


def test_what_costs_nothing_anywhere_is_no_trade_off() -> None:
    """Where nothing was touched again there is a picture of CPU time alone."""
    runs = []
    for design in ("off", "scan"):
        runs += made_up_repeats({"design": design}, {"mean_resident_bytes": GIB, "guest_cpu_s": 1.0})
    assert [one.title for one in tradeoffs_of(conditions_of(runs)[0])] == ["Footprint against CPU"]
