"""One guest that sends garbage in a loop does not slow the others: benchmarks/bad_neighbours.py, at test size."""

import pytest

from benchmarks.bad_neighbours import GARBAGE_KINDS, measured_server, slower_percent
from pagetide.host.allowance import Allowance

KIND = "requests that are refused"
"""The kind that costs most where nothing holds it back."""


@pytest.mark.jit
def test_a_bad_neighbour_costs_little() -> None:
    """It costs the good guest no more than noise and a few percent."""
    assert KIND in GARBAGE_KINDS
    with measured_server() as server:
        assert slower_percent(server, KIND, rounds=3) < 15


@pytest.mark.jit
def test_without_an_allowance_it_would_cost_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test can fail: where nobody ever rests, the same guest takes a good part of the loop."""
    monkeypatch.setattr(Allowance, "rest_s", lambda *_: 0.0)
    with measured_server() as server:
        assert slower_percent(server, KIND, rounds=3) > 25
