"""One guest that sends garbage in a loop does not slow the others: benchmarks/bad_neighbours.py, at test size."""

import pytest

from benchmarks.bad_neighbours import GARBAGE_KINDS, SLOWER_AT_MOST, measured_server, slower_percent
from pagetide.host.device.allowance import Allowance

pytestmark = pytest.mark.alone

ATTEMPTS = 3
"""A short measurement lies up to five percent off."""


@pytest.mark.jit
@pytest.mark.parametrize("kind", GARBAGE_KINDS)
def test_a_bad_neighbour_costs_little(kind: str) -> None:
    """It costs the good guest no more than noise and a few percent, whatever it sends."""
    with measured_server() as server:
        assert any(slower_percent(server, kind, rounds=3) <= SLOWER_AT_MOST for _ in range(ATTEMPTS))


@pytest.mark.jit
def test_without_an_allowance_it_would_cost_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test can fail: where nobody ever rests, a guest takes a good part of the loop."""
    monkeypatch.setattr(Allowance, "rest_s", lambda *_: 0.0)
    with measured_server() as server:
        assert slower_percent(server, "requests that are refused", rounds=3) > 25
