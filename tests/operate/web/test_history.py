"""What is kept of the last day: curves, and page maps of the last hour."""

import random

import pytest

from pagetide.operate.web import map_history
from pagetide.operate.web.history import (
    COARSE_PARTS,
    COARSE_S,
    FINE_LOOKS,
    FORGOTTEN_S,
    GROWING,
    GUESTS_MAX,
    NAMES,
    POINTS_MAX,
    History,
)
from pagetide.operate.web.map_history import BYTES_MAX, EVERY_S, KEPT_S, MapHistory
from tests.operate.watch.seen_vms import MIB, seen, seen_by_kernel

PAGE = 4096
REGIONS = ((0, 64 << 20, 0),)


def test_a_day_of_64_guests_takes_less_than_100_mib() -> None:
    """Curves at two looks a second and maps, both at their fullest: by what the arrays and the compressed maps have."""
    history = History()
    names = [seen(f"vm{number}") for number in range(64)]
    for look in range(3):
        history.add(look * COARSE_S, names)
    assert history.nbytes == 64 * len(NAMES) * 4 * (FINE_LOOKS + COARSE_PARTS) + 8 * (FINE_LOOKS + COARSE_PARTS)
    assert FINE_LOOKS * 0.5 >= 3600
    assert COARSE_PARTS * COARSE_S >= 86400
    assert history.nbytes + BYTES_MAX < 100 * MIB


def test_curves_are_what_was_seen() -> None:
    """Sizes in whole pages as they were; what grew by how much; None for what is not known or was not there."""
    history = History()
    history.add(0.0, [seen("a", returned_bytes=5 * PAGE, used_bytes=None)])
    history.add(0.5, [seen("a", returned_bytes=9 * PAGE, held_bytes=7 * PAGE + 1, used_bytes=None)])
    history.add(1.0, [])
    history.add(1.5, [seen("a", returned_bytes=11 * PAGE), seen("b")])
    curves = history.curves("a", 10.0)
    assert curves["t_s"] == [0.0, 0.5, 1.0, 1.5]
    assert curves["held_bytes"] == [512 * MIB, 7 * PAGE, None, 512 * MIB]
    assert curves["used_bytes"] == [None, None, None, 300 * MIB]
    assert curves["returned_bytes"] == [0, 4 * PAGE, None, 0]  # of one that has been away nobody knows
    assert history.curves("b", 0.1)["t_s"] == [1.5]
    assert history.curves("nobody", 10.0)["held_bytes"] == []


def test_what_is_not_counted_is_not_known() -> None:
    """Of a VM on another's balloon there is what is held, and nothing of what it returned."""
    history = History()
    history.add(0.0, [seen_by_kernel("b", 7)])
    history.add(0.5, [seen_by_kernel("b", 7, held_bytes=MIB)])
    curves = history.curves("b", 10.0)
    assert curves["held_bytes"] == [2000 * MIB, MIB]
    assert [curves[name] for name in GROWING] == [[None, None]] * len(GROWING)
    history.add(1.0, [])
    assert [history.curves("b", 10.0)[name] for name in GROWING] == [[None, None, None]] * len(GROWING)


def test_what_is_not_counted_is_not_known_over_a_long_time_either() -> None:
    """In the parts of a day, in fewer points, and once the VM has gone, or is the daemon's guest."""
    history = History()
    for look in range(FINE_LOOKS):
        history.add(look * 0.5, [seen_by_kernel("b", 7)])
    for after in ([], [seen("b")]):
        history.add(history.curves("b", 1.0)["t_s"][-1] + COARSE_S, after)
        for span_s in (FINE_LOOKS * 0.5 - 1, 86400):
            curves = history.curves("b", span_s)
            assert curves["held_bytes"][0] == 2000 * MIB
            assert [curves[name][-2] for name in GROWING] == [None] * len(GROWING)
            assert curves[GROWING[0]][-1] == (0 if after else None)


def test_an_account_that_begins_anew_has_returned_nothing_yet() -> None:
    """Rather than less than nothing."""
    history = History()
    history.add(0.0, [seen("a", returned_bytes=9 * PAGE)])
    history.add(0.5, [seen("a", returned_bytes=2 * PAGE, account=2)])
    assert history.curves("a", 10.0)["returned_bytes"] == [0, 0]


def test_what_a_guest_had_while_nobody_told_is_not_known() -> None:
    """But what it returned meanwhile is counted when that is told."""
    history = History()
    history.add(0.0, [seen("a", returned_bytes=5 * PAGE)])
    history.add(COARSE_S, [seen("a", returned_bytes=5 * PAGE, is_stale=True)])
    history.add(COARSE_S + 1, [seen("a", returned_bytes=9 * PAGE)])
    curves = history.curves("a", 60.0)
    assert curves["held_bytes"] == [512 * MIB, None, 512 * MIB]
    assert curves["returned_bytes"] == [0, None, 4 * PAGE]


def test_a_long_time_is_told_in_fewer_points_and_nothing_of_what_grew_is_lost() -> None:
    """An hour of looks, and more than that in ten seconds each, add up to the same."""
    history = History()
    looks = FINE_LOOKS + 2400
    for look in range(looks):
        history.add(look * 0.5, [seen("a", returned_bytes=look * PAGE)])
    hour, day = history.curves("a", FINE_LOOKS * 0.5 - 1), history.curves("a", 86400)
    for curves in (hour, day):
        assert len(curves["t_s"]) <= POINTS_MAX
        assert curves["t_s"] == sorted(curves["t_s"])
    assert sum(hour["returned_bytes"]) == pytest.approx(FINE_LOOKS * PAGE, rel=0.01)
    assert sum(day["returned_bytes"]) == pytest.approx(looks * PAGE, rel=0.01)


def test_guests_beyond_what_there_is_room_for_have_no_history_until_others_are_forgotten() -> None:
    """Room is bounded, whatever guests come and go."""
    history = History()
    history.add(0.0, [seen(f"vm{number:03}") for number in range(GUESTS_MAX + 1)])
    assert history.curves(f"vm{GUESTS_MAX:03}", 1.0)[GROWING[0]] == []
    before = history.nbytes
    history.add(FORGOTTEN_S + 1, [seen("new")])
    assert history.curves("new", 1.0)["held_bytes"] == [512 * MIB]
    assert history.nbytes < before


def test_of_a_guest_without_a_history_there_are_no_curves_however_long_others_have_been_there() -> None:
    """Not the times of the others' looks, which are more than a curve has points."""
    history = History()
    for look in range(POINTS_MAX + 1):
        history.add(look * 0.5, [seen("a")])
    assert history.curves("nobody", 86400) == {"t_s": [], **{name: [] for name in NAMES}}
    assert len(history.curves("a", 86400)["t_s"]) > 0


def test_who_has_gone_for_longest_makes_room() -> None:
    """For one that comes when all places are taken; nobody who is there does."""
    history = History()
    others = [seen(f"vm{number:03}") for number in range(GUESTS_MAX - 2)]
    history.add(0.0, [seen("first"), seen("second"), *others])
    history.add(1.0, [seen("second"), *others])
    history.add(2.0, [*others])
    history.add(3.0, [seen("new"), *others])
    assert history.curves("new", 1.0)["held_bytes"] == [512 * MIB]
    assert history.curves("first", 10.0)["t_s"] == []
    assert history.curves("second", 10.0)["held_bytes"][1] == 512 * MIB


def test_the_map_of_any_time_of_the_last_hour_is_kept() -> None:
    """Not more often than there is room for; before the first one the first is told."""
    maps = MapHistory()
    assert maps.at("a", 5.0) is None
    assert maps.add(100.0, "a", REGIONS, b"hhrr")
    assert not maps.add(100.0 + EVERY_S / 2, "a", REGIONS, b"rrrr")
    assert maps.add(100.0 + EVERY_S, "a", REGIONS, b"nnnn")
    told = [maps.at("a", t_s) for t_s in (0.0, 100.0, 109.9, float("inf"))]
    assert [kept.letters for kept in told if kept is not None] == ["hhrr", "hhrr", "hhrr", "nnnn"]
    maps.add(100.0 + EVERY_S + KEPT_S, "b", REGIONS, b"h")
    assert maps.times("a") == [110.0]
    maps.add(200.0 + KEPT_S, "b", REGIONS, b"h")
    assert maps.times("a") == []


def test_all_maps_take_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, whosever they are."""
    monkeypatch.setattr(map_history, "BYTES_MAX", 20_000)
    maps, generator = MapHistory(), random.Random(1)
    for number in range(60):
        letters = bytes(generator.choices(b"hprn", k=4000))
        maps.add(number * EVERY_S, f"vm{number % 3}", REGIONS, letters)
        assert maps.nbytes <= 20_000
    times = [maps.times(f"vm{number}") for number in range(3)]
    assert min(map(min, times)) > 40 * EVERY_S
    assert max(map(max, times)) == 59 * EVERY_S
