"""Rests of those who have used up their allowances."""

import time

import pytest

from pagetide.host.device.allowance import CHARGE_MAX_S, IN_VAIN, SHARE, WANTED, Use
from pagetide.host.sharing.costs import Costs


def _resting(*parties: str) -> Costs[str]:
    """Costs of parties whose rests are just over."""
    costs: Costs[str] = Costs()
    for party in parties:
        costs.enter(party, CHARGE_MAX_S)
        while not costs.charge(party, CHARGE_MAX_S):
            pass
    costs.clock_s = max(costs.rests_until_s(party) for party in parties)
    return costs


def test_who_is_charged_before_its_rest_is_ended_rests_on() -> None:
    """Ending one party's rest may charge another whose rest is over as well: that one is heard later, and once."""
    costs = _resting("guest", "its socket")
    rested = costs.take_rested()
    assert next(rested) == "guest"
    assert not costs.charge("its socket", CHARGE_MAX_S)
    assert list(rested) == []
    costs.clock_s = costs.rests_until_s("its socket")
    assert list(costs.take_rested()) == ["its socket"]
    assert not costs.is_resting("its socket")
    assert costs.charge("its socket", CHARGE_MAX_S)


def test_who_has_gone_is_not_heard_again() -> None:
    """A party that leaves while another's rest is ended is not named after it."""
    costs = _resting("first", "second")
    rested = costs.take_rested()
    assert next(rested) == "first"
    costs.leave("second")
    assert list(rested) == []


@pytest.mark.parametrize(("use", "spent_s"), [(IN_VAIN, 0.006), (WANTED, 0.0)])
def test_who_wakes_the_loop_pays_for_the_waking(monkeypatch: pytest.MonkeyPatch, use: Use, spent_s: float) -> None:
    """What a round takes besides its actions is its last party's, if that used it in vain; a rest lasts longer."""
    used_s = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: used_s[0])
    costs: Costs[str] = Costs()
    costs.enter("guest", CHARGE_MAX_S)
    for _ in range(3):
        costs.begin_round(0.0)
        used_s[0] += 0.001
        costs.account("guest", use, costs.lap_s())
        used_s[0] += 0.001
        costs.end_round()
    assert costs.spent_s("guest") == pytest.approx(spent_s)
    assert costs.clock_s == pytest.approx(0.006)
    costs.begin_round(0.0)
    while not costs.charge("guest", CHARGE_MAX_S):
        pass
    until_s = costs.rests_until_s("guest")
    used_s[0] += 0.001
    costs.end_round()
    assert costs.rests_until_s("guest") == pytest.approx(until_s + 0.001 / SHARE)
