"""What hosts hold by the model: against the rules in plain Python, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.fleet.guests.held import HELD, HELD_MOST, REFAULTED, RETURNED, STEPS, USED, held
from pagetide.fleet.guests.response import ALL_RETURNS, LEVELS, NOTHING_RETURNS, Response
from pagetide.fleet.usage.canonical import Grid, Usage

STEP_S = 300


def usage_of(used: list[list[float]], capacity: list[list[float]] | None = None) -> Usage:
    """VMs of 100 bytes, or of these; what is negative is unknown."""
    array = np.array(used, np.float32)
    capacities = np.full(array.shape, 100, np.float32) if capacity is None else np.array(capacity, np.float32)
    valid = array >= 0
    return Usage(Grid(0, STEP_S, array.shape[1]), ("vm",) * len(used), capacities * valid, np.maximum(array, 0), valid)


def test_what_returns_nothing_holds_the_most_used_so_far() -> None:
    """Until the guest is off: then it begins anew. What returns all at once holds what is used."""
    usage = usage_of([[10, 40, 20, 0, 5]], [[100, 100, 100, 0, 100]])
    assert held(usage, NOTHING_RETURNS).bytes_by_step.tolist() == [10, 40, 40, 0, 5]
    assert held(usage, ALL_RETURNS).bytes_by_step.tolist() == [10, 40, 20, 0, 5]


def test_memory_returns_with_its_time_constant_and_is_refaulted() -> None:
    """After a fall of 60, e^-1 of it is left a step later; growing back takes that first, and refaults the rest."""
    figures = held(usage_of([[80, 20, 80]]), Response("slow", STEP_S, np.zeros(LEVELS + 1))).figures[0]
    gone = 60 * (1 - math.exp(-1))
    assert figures[RETURNED] == pytest.approx(gone)
    assert figures[REFAULTED] == pytest.approx(gone)
    assert figures[HELD] == pytest.approx(80 + 20 + 60 * (1 - math.exp(-1)) + 80)
    assert figures[HELD_MOST] == 80


def test_what_is_left_behind_stays_until_all_is_free() -> None:
    """By the level to which use fell: some at a quarter, nothing at nothing; growth takes it before the rest."""
    left = np.interp(np.linspace(0, 1, LEVELS + 1), [0, 0.5, 1], [0, 0.25, 0])
    usage = usage_of([[80, 20, 20, 45, 0, 10]])
    found = held(usage, Response("left", 0.0, left))
    assert found.bytes_by_step.tolist() == [80, 40, 40, 45 + 10, 0, 10]
    assert found.figures[0, REFAULTED] == 15 + 10


def test_growth_passes_over_what_is_left_behind() -> None:
    """Half of use is in blocks that are left behind, and can use those again; the other half of a growth is new."""
    left = (1 - np.linspace(0, 1, LEVELS + 1) ** 2) / 2
    found = held(usage_of([[80, 20, 45, 80]]), Response("left", 0.0, left))
    assert found.bytes_by_step.tolist() == [80, 50, 62.5, 80]
    assert found.figures[0, REFAULTED] == 30


def test_a_reserve_is_kept_of_what_was_touched() -> None:
    """A tenth of what the guest has beside what it uses, and nothing of it is held that was not used before."""
    found = held(usage_of([[30, 10, 25, 5, 3]]), Response("kept", 0.0, np.zeros(LEVELS + 1), keeps=0.1))
    assert found.bytes_by_step.tolist() == [30, 20, 25, 15, 13]


def test_a_part_of_a_block_is_kept_whatever_the_memory() -> None:
    """As many bytes on a guest of any size."""
    response = Response("kept", 0.0, np.zeros(LEVELS + 1), keeps_bytes=4)
    small, large = (held(usage_of([[30, 10, 25]], [[ram] * 3]), response).bytes_by_step for ram in (100, 1000))
    assert small.tolist() == large.tolist() == [30, 14, 25]


def test_what_is_left_behind_fades_as_areas_become_empty() -> None:
    """With 10 things to an area that all of 80 fills, 20 of which are in use, half freed: 1 in 6 loses its last."""
    left = (1 - np.linspace(0, 1, LEVELS + 1) ** 2) / 2
    found = held(usage_of([[80, 20, 0, 20]]), Response("left", 0.0, left, fades=0.1))
    highest = 80 - 60 * 6 / 26
    assert found.bytes_by_step.tolist() == pytest.approx([80, 20 + (highest - 20) / 2, 0, 20], rel=1e-3)


def test_what_is_taken_away_is_held_no_more() -> None:
    """Of 80 that were used, nothing above a capacity of 50 is held, remembered as the highest or refaulted later."""
    usage = usage_of([[80, 20, 20, 60]], [[100, 50, 50, 100]])
    found = held(usage, NOTHING_RETURNS)
    assert found.bytes_by_step.tolist() == [80, 50, 50, 60]
    assert found.figures[0, [REFAULTED, HELD_MOST]].tolist() == [0, 80]
    left = Response("left", 0.0, np.interp(np.linspace(0, 1, LEVELS + 1), [0, 0.5, 1], [0, 0.25, 0]))
    assert held(usage_of([[80, 12.5]], [[100, 50]]), left).bytes_by_step.tolist() == [80, 12.5 + 0.25 * 50]


def test_what_is_unknown_is_in_no_sum() -> None:
    """Before, between and after samples; what was held is held on."""
    found = held(usage_of([[-1, 30, -1, 10, -1]]), NOTHING_RETURNS)
    assert found.bytes_by_step.tolist() == [0, 30, 0, 30, 0]
    assert found.figures[0, [STEPS, USED, HELD]].tolist() == [2, 40, 60]


def plainly(used: list[float], response: Response) -> tuple[list[float], float, float]:
    """The model of one VM of 100 bytes in plain Python: held on average by step, returned and refaulted."""
    coming = left = most_used = most_held = returned = refaulted = before = 0.0
    means = []
    for use in used:
        free = coming + left
        taken = max(0.0, use - before) if use > before else 0.0
        if use < before and response.fades:
            emptied = response.fades * most_used * (before - use) / before
            most_used = (most_used * use + use * emptied) / (use + emptied)
        most_used = max(most_used, use)
        bound = most_used * float(np.interp(math.sqrt(use / most_used), np.linspace(0, 1, LEVELS + 1), response.left))
        new = max(taken - free, min(taken, bound + taken - free, 100 - before - free), 0.0)
        free += before - use + new
        total = use + free
        refaulted += min(new, most_held - (total - new))
        most_held = max(most_held, total)
        left = min(free, (bound if most_used else 0.0) + 100 * response.keeps + response.keeps_bytes)
        coming = free - left
        stays, on_average = response.over(STEP_S)
        means.append(use + left + coming * on_average)
        returned += coming * (1 - stays)
        coming, before = coming * stays, use
    return means, returned, refaulted


@given(
    st.lists(st.lists(st.floats(1, 100, width=32), min_size=6, max_size=6), min_size=1, max_size=3),
    st.floats(0, 1000),
    st.lists(st.floats(0, 0.5), min_size=LEVELS + 1, max_size=LEVELS + 1),
    st.floats(0, 1),
    st.floats(0, 0.2),
    st.floats(0, 10),
)
def test_the_pass_follows_the_model(
    used: list[list[float]], return_s: float, left: list[float], fades: float, keeps: float, keeps_bytes: float
) -> None:
    """Coming and left behind kept apart, as the model says, come to the same as the one pass over the samples."""
    response = Response("any", return_s, np.array(left), fades, keeps, keeps_bytes)
    found = held(usage_of(used), response)
    plain = [plainly(one, response) for one in used]
    assert found.bytes_by_step == pytest.approx(np.sum([means for means, _, _ in plain], 0))
    assert found.figures[:, RETURNED] == pytest.approx([returned for _, returned, _ in plain])
    assert found.figures[:, REFAULTED] == pytest.approx([refaulted for _, _, refaulted in plain], abs=1e-9)
