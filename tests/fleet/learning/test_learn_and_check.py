"""Learning from simulated guests, the file of what was learned, and the check against others."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from pagetide.fleet.guests.response import LEVELS
from pagetide.fleet.learning import responses as responses_module
from pagetide.fleet.learning.check import Checked, Day, check, draw, verdicts
from pagetide.fleet.learning.chosen import Chosen, choose
from pagetide.fleet.learning.fit import is_on_edge
from pagetide.fleet.learning.observe import observe
from pagetide.fleet.learning.responses import Learned, Responses, learn, read_responses, write_responses
from pagetide.fleet.learning.settings import RAM_BYTES, SCATTERS, SETTINGS, config_of
from pagetide.fleet.usage.canonical import UsageError
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import read_costs
from pagetide.units import HUGE_PAGE_BYTES

BUILT_IN = Path(responses_module.__file__).with_name("responses_default.json")


def learned(setting: str = "off", guest: str = "last", **changes: object) -> Learned:
    """The response of a guest that returns nothing, but for changes."""
    known = {"return_s": None, "left": (0.0,) * (LEVELS + 1), "fades": 0.0, "keeps": 0.0}
    known |= {"keeps_bytes": 0, "off_share": 0.0}
    return msgspec.convert({"setting": setting, "guest": guest, **known, **changes}, Learned)


def test_every_setting_can_be_simulated() -> None:
    """None has a value that does not fit another one."""
    for setting in SETTINGS:
        config_of(setting, seed=1).check()


def test_a_simulated_guest_follows_its_curve() -> None:
    """Step by step; a host without reporting holds the most so far, one with it little more than is used."""
    shares = [0.2, 0.7, 0.4, 0.4]
    off = observe("off", "last", shares, read_costs(), seed=1)
    assert off.used / RAM_BYTES == pytest.approx(shares, abs=0.01)
    assert off.held / RAM_BYTES == pytest.approx(np.maximum.accumulate(shares), abs=0.01)
    assert off.held_mean[3] == pytest.approx(off.held[3])
    on = observe("linux-9", "last", shares, read_costs(), seed=1)
    assert on.held / RAM_BYTES == pytest.approx(shares, abs=0.02)
    assert on.held[2] < on.held_mean[2] < on.held[1]


@pytest.mark.slow
def test_what_is_learned_of_off_is_that_nothing_returns() -> None:
    """From simulated guests of both kinds, alike for the same seed; the model is close to what it was learned from."""
    told: list[None] = []
    found = learn(["off"], read_costs(), 1, lambda: told.append(None))
    assert len(told) == len(SCATTERS)
    assert [(one.setting, one.guest) for one in found.learned] == [("off", "last"), ("off", "anywhere")]
    for one in found.learned:
        assert (one.return_s, max(one.left)) == (None, 0.0)
        assert one.off_share < 0.01
    assert learn(["off"], read_costs(), 1, lambda: None) == found


def test_responses_are_kept_in_a_file(tmp_path: Path) -> None:
    """What is written is read again; what cannot be read, or cannot be, is one sentence."""
    path = tmp_path / "new" / "responses.json"
    found = Responses(ram_bytes=RAM_BYTES, mix="0=1", seed=1, costs="2026-11-29", learned=(learned(),))
    write_responses(found, path)
    assert read_responses(path) == found
    with pytest.raises(ConfigError, match=r"cannot be read: .*; `pagetide fleet learn` makes them"):
        read_responses(tmp_path / "none.json")
    path.write_text("[]")
    with pytest.raises(ConfigError, match=r"does not hold responses .*; `pagetide fleet learn` makes it anew$"):
        read_responses(path)
    most = {"left": (1.5,) * (LEVELS + 1)}
    for wrong in (most, {"left": (0.0,)}, {"return_s": -1.0}, {"fades": -0.5}, {"keeps": 2.0}, {"keeps_bytes": -1}):
        write_responses(msgspec.structs.replace(found, learned=(learned(**wrong),)), path)
        with pytest.raises(ConfigError, match="the response of off and last cannot be"):
            read_responses(path)


def test_old_responses_in_the_usual_place_may_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who once learned them is told what to do."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "pagetide").mkdir()
    (tmp_path / "pagetide/responses.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"learn` makes it anew, or delete it to use what is built in$"):
        read_responses()


def test_the_built_in_responses_are_of_every_setting() -> None:
    """Of both kinds of guest, learned on the guest that is simulated now; none far from what it was learned from."""
    found = read_responses(BUILT_IN)
    assert (found.ram_bytes, found.mix) == (RAM_BYTES, config_of("off", 1).mix)
    assert {(a, b) for a in SETTINGS for b in SCATTERS} == {(one.setting, one.guest) for one in found.learned}
    assert max(one.off_share for one in found.learned) < 0.06


def test_the_built_in_responses_keep_a_reserve_only_with_a_balloon() -> None:
    """The others keep at most a block and a little, whatever a guest's memory; no fading is at the edge of its grid."""
    for one in read_responses(BUILT_IN).learned:
        assert one.setting == "balloon" or one.keeps == 0
        assert one.keeps_bytes <= 1.25 * HUGE_PAGE_BYTES
        assert not is_on_edge(one.fades)


def test_days_are_drawn_by_seed() -> None:
    """Whole days on which the VM is on; the same for the same seed; too few are said to be too few."""
    fleet = MadeUp(30, 3, seed=2)
    days = draw(fleet, 6, seed=1)
    again = draw(fleet, 6, seed=1)
    assert [(one.vm, one.day) for one in days] == [(one.vm, one.day) for one in again]
    assert [(one.vm, one.day) for one in draw(fleet, 6, seed=2)] != [(one.vm, one.day) for one in days]
    for one in days:
        assert len(one.shares) == 288
        assert 0 < one.shares.min() <= one.shares.max() <= 0.9
    fleet.grid = fleet.grid._replace(step_s=60)
    with pytest.raises(UsageError, match="864 steps of 60 s: a day that can be checked has 288 of 300 s"):
        draw(fleet, 6, seed=1)


@pytest.mark.slow
def test_a_wrong_response_is_found_out() -> None:
    """A day of a VM that is busy at times: right for `off` is that nothing returns, wrong that all does."""
    fleet = MadeUp(30, 3, seed=2)
    days = [
        max(draw(fleet, 20, seed=1), key=lambda day: float((np.maximum.accumulate(day.shares) - day.shares).mean()))
    ]
    right, wrong = learned(), learned(return_s=0.0)
    good, bad = (
        verdicts(
            check(days, [Chosen(name="off", guest="last", parts=(one,), shares=(1.0,))], read_costs(), 1, lambda: None)
        )[0]
        for one in (right, wrong)
    )
    assert good.is_good
    assert good.mean_off < 0.01
    assert not bad.is_good
    assert bad.simulated == good.simulated
    assert bad.modelled < good.modelled


def test_a_mixture_is_checked_by_its_parts() -> None:
    """Each day has one of them: what was simulated for it is what that part alone has."""
    days = [Day("a", day, np.array([0.2, 0.7, 0.4, 0.4])) for day in range(6)]
    responses = read_responses(BUILT_IN)
    mixed, *alone = (
        [one.simulated for one in check(days, choose(responses, [name])[:1], read_costs(), 1, lambda: None)]
        for name in ("off:0.5+linux-9:0.5", "off", "linux-9")
    )
    assert {one in (a, b) for one, a, b in zip(mixed, *alone, strict=True)} == {True}
    assert mixed not in alone


def test_a_verdict_is_of_all_days_of_a_setting() -> None:
    """The mean of how far the model is off, whichever way, and the most; each has its limit."""

    def day(simulated: float, modelled: float, setting: str = "off") -> Checked:
        return Checked(vm="a", day=0, setting=setting, guest="last", used=0.1, simulated=simulated, modelled=modelled)

    one, other = verdicts(
        [day(0.50, 0.52), day(0.5, 0.45), day(0.3, 0.37, "pool"), day(0.40, 0.41), day(0.5, 0.5, "pool")]
    )
    assert (one.setting, one.is_good) == ("off", True)
    assert one.mean_off == pytest.approx(0.08 / 3)
    assert one.most_off == pytest.approx(0.05)
    assert (other.setting, other.is_good) == ("pool", False)
    assert other.simulated == pytest.approx(0.4)
    assert other.modelled == pytest.approx(0.435)
