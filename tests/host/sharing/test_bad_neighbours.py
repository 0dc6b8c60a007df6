"""Whoever sends garbage in a loop has two percent of a processor: benchmarks/host/bad_neighbours.py, at test size.

What a server that serves nobody else uses is its own CPU time, by the kernel's account. A virtual machine whose
processors are taken away for a while counts that as used, too, so it is too much at times: one of some tries has to do.
"""

import pytest

from benchmarks.host.bad_neighbours import GARBAGE_KINDS, TAKEN_AT_MOST, taken_percent
from pagetide.host.device.allowance import Allowance

TAKEN_S = 2.0
"""Some twenty rests of who sends without pause."""
TRIES = 5

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("kind", GARBAGE_KINDS)
def test_a_bad_neighbour_takes_its_share(kind: str) -> None:
    """It takes no more than its share, whatever it sends, and however many connections it opens and loses."""
    tries = (taken_percent(kind, taken_s=TAKEN_S) for _ in range(TRIES))
    assert any(taken <= TAKEN_AT_MOST for taken in tries)


@pytest.mark.parametrize("kind", ["connections by the dozen", "requests that are refused"])
def test_without_an_allowance_it_would_take_much(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test can fail: where nobody ever rests, several times as much is taken."""
    monkeypatch.setattr(Allowance, "rest_s", lambda *_: 0.0)
    assert taken_percent(kind, burst_max_s=1.0, taken_s=TAKEN_S) > 4 * TAKEN_AT_MOST
