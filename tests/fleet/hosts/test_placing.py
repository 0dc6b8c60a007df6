"""Placing VMs on hosts: against first fit in plain Python, and each policy's rule by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.fleet.hosts.host import known
from pagetide.fleet.hosts.placing.first_fit import first_fit
from pagetide.fleet.hosts.placing.registry import PLANS, Plan, PlanError, parse_plan
from pagetide.fleet.usage.canonical import Grid, Usage

ROOM = 100.0


def plainly(wanted: list[list[float]]) -> list[int]:
    """First fit in plain Python: hosts as lists of what their VMs want."""
    hosts: list[list[list[float]]] = []
    found = []
    for vm in wanted:
        fits = [all(sum(column) <= ROOM for column in zip(*on, vm, strict=True)) for on in hosts]
        number = fits.index(True) if True in fits else len(hosts)
        if number == len(hosts):
            hosts.append([])
        hosts[number].append(vm)
        found.append(number)
    return found


@settings(max_examples=50)
@given(st.integers(1, 3).flatmap(lambda spans: st.lists(st.lists(st.integers(0, 120), min_size=spans, max_size=spans))))
def test_first_fit_is_as_in_plain_python(wanted: list[list[float]]) -> None:
    """Each VM on the first host where it fits at all times; one that fits nowhere has a host of its own."""
    array = np.array(wanted, np.float64).reshape(len(wanted), -1 if wanted else 1)
    assert first_fit(array, np.arange(len(wanted)), ROOM).tolist() == plainly(wanted)


def test_the_order_is_that_of_the_draw() -> None:
    """A VM that was drawn twice is placed twice."""
    wanted = np.array([[60.0], [40.0]])
    assert first_fit(wanted, np.array([1, 0, 0, 1]), ROOM).tolist() == [0, 0, 1, 1]


HELD = [[10, 20, 30, 40, 99, 99, 99, 99], [0, 50, 0, 0, 99, 99, 99, 99], [9, 9, 9, 9, 9, 9, 9, 9]]
"""Three VMs; the last is off while the others are looked at."""


def usage() -> Usage:
    """Two VMs of 200 bytes, and one that is on only later; steps of half an hour."""
    capacity = np.full((3, 8), 200, np.float32)
    capacity[2, :4] = 0
    shape = capacity.shape
    return Usage(Grid(0, 1800, 8), ("a", "b", "c"), capacity, np.zeros(shape, np.float32), np.ones(shape, np.bool_))


@pytest.mark.parametrize(
    ("plan", "wanted"),
    [
        ("reservation", [[200], [200], [200]]),
        ("quantile:1", [[40], [50], [200]]),
        ("quantile:0.75", [[30], [0], [200]]),
        ("quantile:0.5", [[20], [0], [200]]),
        ("peak-of-sum", [[20, 40], [50, 0], [200, 200]]),
    ],
)
def test_policies_look_at_the_first_half(plan: str, wanted: list[list[float]]) -> None:
    """What is later is not known, and a VM of which nothing is known has what it reserves."""
    found = parse_plan(plan).wanted(known(usage(), np.array(HELD, np.float32)))
    assert found.tolist() == wanted


def test_unknown_steps_are_in_no_quantile() -> None:
    """Only what was seen counts: of 10, 20 and 40 with a gap the middle is 20."""
    one = usage()
    one.valid[0, 2] = False
    found = Plan("quantile", 0.5).wanted(known(one, np.array(HELD, np.float32)))
    assert found[0] == [20]


@pytest.mark.parametrize(
    "text", ["quantile", "quantile:0", "quantile:1.5", "quantile:nan", "reservation:1", "best-fit", ""]
)
def test_a_plan_that_is_none_is_one_sentence(text: str) -> None:
    """And each that is looked at by default is parsed to itself."""
    with pytest.raises(PlanError):
        parse_plan(text)
    assert [parse_plan(plan.name) for plan in PLANS] == list(PLANS)
