"""Rests of those who have used up their allowances."""

from pagetide.host.device.allowance import CHARGE_MAX_S
from pagetide.host.sharing.costs import Costs


def _resting(*parties: str) -> Costs[str]:
    """Costs of parties whose rests are just over."""
    costs: Costs[str] = Costs()
    for party in parties:
        costs.enter(party, CHARGE_MAX_S)
        while not costs.charge(party, CHARGE_MAX_S):
            pass
        costs.rest_until(party, costs.clock_s)
    return costs


def test_who_is_charged_before_its_rest_is_ended_begins_no_second_one() -> None:
    """Ending one party's rest may charge another whose rest is over as well: that one is heard next, and not twice."""
    costs = _resting("guest", "its socket")
    rested = costs.take_rested()
    assert next(rested) == "guest"
    assert not costs.charge("its socket", CHARGE_MAX_S)
    assert next(rested) == "its socket"
    assert not costs.is_resting("its socket")
    assert costs.charge("its socket", CHARGE_MAX_S)


def test_who_has_gone_is_not_heard_again() -> None:
    """A party that leaves while another's rest is ended is not named after it."""
    costs = _resting("first", "second")
    rested = costs.take_rested()
    assert next(rested) == "first"
    assert costs.leave("second") > 0
    assert list(rested) == []
