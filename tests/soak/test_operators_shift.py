"""The soak as an operator sees it: a short shift is all right, and what would not be is seen."""

import mmap
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Semaphore
from typing import Any

import pytest

from pagetide.host.memory.ledger import WORD_NAMES
from soak.operators import part as operators
from soak.operators import shift
from soak.operators.alarms import Firing, fired, judge
from soak.operators.books import Account, Books, accounts_of
from soak.operators.growth import Growth, growth
from soak.operators.part import Operators
from soak.operators.resident import Resident
from soak.operators.shift import Crew, Found, grown_too_much
from soak.operators.tenants import Tenant
from soak.operators.timetable import FAULTS, GIVEN_UP, KEPT, RESET, ROUND_MIN, SEALED, Timetable, scaled
from soak.operators.yard import Injected, Yard
from soak.part import BrokenError, CutShortError
from tests.clinic.patient import Patient
from tests.operate.metrics.prometheus import RULES
from tests.real_guests import real_guests

pytestmark = pytest.mark.jit

MIB = 1 << 20


@pytest.mark.slow
@real_guests(1)
def test_a_short_shift() -> None:
    """Two guests and three faults in a minute: books balance, and each alert fires for its fault alone."""
    part, reached = Operators(Crew(2, 0, (KEPT, GIVEN_UP, SEALED))), Counter[str]()
    with part.session(reached, time.monotonic() + 65) as trial:
        trial(1)
    assert {KEPT.name, GIVEN_UP.name, SEALED.name} <= reached.keys()
    assert "What was not as it must be: nothing." in part.told()
    assert "No other alert fired." in part.told()
    assert part.told().count("| vm0") == 3
    assert "| daemon, RssAnon |" in part.told()


def test_what_a_shift_found_is_not_told_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that breaks down says so in its own words, and one that is cut short says nothing."""
    found: list[Found | Exception] = [
        Found(1, 1.0, 1.0, Counter(), {}, [], [], []),
        BrokenError("the daemon ended"),
        CutShortError(),
    ]

    def play(*_: object) -> Found:
        each = found.pop(0)
        if isinstance(each, Exception):
            raise each
        return each

    monkeypatch.setattr(operators, "play", play)
    part = Operators()
    with part.session(Counter(), 0.0) as trial:
        trial(1)
        assert "What was not as it must be: nothing." in part.told()
        with pytest.raises(BrokenError):
            trial(2)
        assert part.told() == "Seed 2: it came to no end. What was not as it must be: the daemon ended."
        with pytest.raises(CutShortError):
            trial(3)
        assert part.told() == ""


def test_who_hangs_is_ended_and_all_are_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two VMs that answer nothing neither is left, and the second is given no time of its own."""
    monkeypatch.setattr(shift, "_JOIN_MAX_S", 1.0)
    timetable, there, waits_s = Timetable(60.0), Semaphore(0), list[float]()
    vms: list[Patient] = []

    class Waited(Tenant):
        def start(self) -> None:
            super().start()
            assert there.acquire(timeout=60)

        def join(self, timeout_s: float) -> str | None:
            waits_s.append(timeout_s)
            return super().join(timeout_s)

    def boot(*_: object) -> Patient:
        vms.append(Patient(["sh", "-c", "echo @ready; exec sleep 1000"], MIB, ""))
        there.release()
        return vms[-1]

    yard = Yard(tmp_path, tmp_path / "control", timetable, 1.0, Counter())
    tenants = [Waited(name, yard, ("none", boot), name, []) for name in ("vm01", "vm02")]
    timetable.over.set()
    with pytest.raises(BrokenError, match=r"vm01: it does not .*; vm02: it does not"), shift._acting(tenants, yard):
        pass
    assert sum(waits_s[:2]) < 1.5
    for vm in vms:
        with pytest.raises(ProcessLookupError):
            os.kill(vm.pid, 0)


def test_growth_is_told_with_its_unit() -> None:
    """Memory as sizes, descriptors as a number; what stays within its limit is not told."""
    grown = Growth(0.0, 0.0, 3.0 * MIB, 0.0, 1.0)
    figures = {
        "daemon, RSS": grown,
        "metrics, descriptors": grown._replace(per_hour=5.0),
        "metrics, RSS": Growth(*[0.0] * 5),
    }
    assert grown_too_much(figures) == [
        "daemon, RSS grew by 3 MiB at least",
        "metrics, descriptors grew by 5 at least",
    ]


def test_memory_is_told_by_its_kinds() -> None:
    """What a process takes is its own, what it maps of a memory file is shared; who has ended is not looked at."""
    size = 16 * MIB
    resident = Resident(os.getpid())
    with mmap.mmap(-1, size, mmap.MAP_PRIVATE) as own, mmap.mmap(-1, size) as shared:
        resident.look(1.0)
        for mapping in (own, shared):
            mapping.write(bytes(size))
            resident.look(2.0)
    before, with_own, with_both = (
        dict(zip(resident.bytes, sizes, strict=True)) for sizes in zip(*resident.bytes.values(), strict=True)
    )
    assert with_own["RssAnon"] - before["RssAnon"] == pytest.approx(size, abs=MIB)
    assert with_both["RssShmem"] - with_own["RssShmem"] == pytest.approx(size, abs=MIB)
    assert resident.times_s == [1.0, 2.0, 2.0]
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        gone = Resident(ended.pid)
        gone.look(3.0)
    assert gone.times_s == []


def test_a_shift_that_is_too_short_shows_nothing() -> None:
    """It is cut short before anything is started."""
    with Operators().session(Counter(), time.monotonic() + 10) as trial, pytest.raises(CutShortError):
        trial(1)


def test_the_rules_times_are_shortened_and_nothing_else() -> None:
    """Half an hour is a minute and a half at a twentieth; thresholds stay, and at 1 the rules are the same."""
    rules = RULES.read_text()
    short = scaled(rules, 20)
    assert "for: 90000ms" in short
    assert "[15000ms]" in short
    assert "> 0.25 * pagetide_guest_memory_bytes" in short
    assert scaled(rules, 1.0) == rules


def test_a_fault_and_its_alert_end_within_their_round() -> None:
    """Whatever the seed, so that what is still on at the end of a shift is wrong."""
    timetable = Timetable(2 * ROUND_MIN * 60)
    assert (timetable.rounds, timetable.scale) == (2, 1.0)
    for seed in range(50):
        for one in FAULTS:
            for number in range(2):
                due_min = (timetable.moment_s(Random(seed), one, number) - timetable.start_s) / 60
                end_min = due_min + max(one.lasts_min + one.ends_min, one.fires_min[1])
                assert number * ROUND_MIN < due_min < end_min < (number + 1) * ROUND_MIN


KEPT_AT = Injected(KEPT, "vm01", 0.0, 1000.0, 3280.0)
GIVEN_UP_AT = Injected(GIVEN_UP, "stranger01", 0.0, 5000.0, 5000.0)
RIGHT = [
    Firing(KEPT.alert, "vm01", 2805.0, 3285.0),
    Firing(GIVEN_UP.alert, "stranger01", 5065.0, 5600.0),
]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda firings: firings[:1], "did not fire in time"),
        (lambda firings: [firings[0]._replace(start_s=2700.0), firings[1]], "did not fire in time"),
        (lambda firings: [firings[0]._replace(start_s=2900.0), firings[1]], "did not fire in time"),
        (lambda firings: [firings[0]._replace(end_s=3400.0), firings[1]], "fired for 120 s after the fault"),
        (lambda firings: [firings[0]._replace(guest="vm02"), firings[1]], "vm02: .* fired without a fault"),
        (lambda firings: [*firings, firings[0]._replace(start_s=4000.0, end_s=4001.0)], "fired without a fault"),
        (lambda firings: [*firings, Firing(SEALED.alert, "vm01", 2805.0, 3285.0)], "fired without a fault"),
    ],
)
def test_an_alert_that_fires_otherwise_is_seen(change: Callable[[list[Firing]], list[Firing]], sentence: str) -> None:
    """Never, too early, too late, for too long, for another guest, twice, or another alert."""
    timetable = Timetable(2 * ROUND_MIN * 60)
    judged, wrong = judge([KEPT_AT, GIVEN_UP_AT], RIGHT, timetable)
    assert [one.firing for one in judged] == RIGHT
    assert wrong == []
    _, wrong = judge([KEPT_AT, GIVEN_UP_AT], change(list(RIGHT)), timetable)
    assert wrong
    assert re.search(sentence, " ".join(wrong))


def test_a_fault_that_was_not_injected_is_seen() -> None:
    """It would otherwise pass for one without an alert."""
    _, wrong = judge([Injected(RESET, "stranger02", 0.0)], [], Timetable(3600))
    assert wrong == [f"stranger02: {RESET.name}: was not injected"]


class Answering:
    """A Prometheus that knows two stretches of one alert."""

    def ask(self, what: str, **query: str) -> dict[str, object]:
        times = [*range(100, 110), *range(200, 205)]
        labels = {"alertname": "A", "guest": "vm01"}
        return {"result": [{"metric": labels, "values": [[at, "1"] for at in times]}]}


def test_an_alert_that_pauses_has_fired_twice() -> None:
    """Each stretch is one firing."""
    found = fired(Answering(), 0.0, 300.0, 1.0)  # type: ignore[arg-type]
    assert found == [Firing("A", "vm01", 100.0, 109.0), Firing("A", "vm01", 200.0, 204.0)]


def test_growth_is_told_from_noise_and_from_guests() -> None:
    """A leak of 10 an hour is found within its interval; guests that come and go, and noise, are none."""
    rng = Random(1)
    times_s = [5.0 * n for n in range(1440)]
    guests = [20.0 - (n // 60) % 5 for n in range(1440)]
    steady = [100 + 14 * there + rng.gauss(0, 3) for there in guests]
    flat = growth(times_s, steady, guests)
    assert abs(flat.per_hour) < 2 * flat.by_per_hour < 1
    assert flat.least < 0.5
    leaking = [value + 10 * at / 3600 for at, value in zip(times_s, steady, strict=True)]
    found = growth(times_s, leaking, guests)
    assert abs(found.per_hour - 10) < 2 * found.by_per_hour
    assert found.least > 10
    assert growth(times_s, leaking, [20.0] * 1440).per_hour == pytest.approx(10, abs=8)
    with pytest.raises(ValueError, match="too few"):
        growth(times_s[:20], steady[:20], guests[:20])


def books(**changes: Any) -> Books:
    """A guest's that are right, but for this."""
    accounts = {"reported": Account(100, 90, {"repeated": 10}), "inflated": Account(0, 0, {})}
    right = Books("vm01", "User-Mode Linux", 1, accounts, 128 * MIB, 107 * MIB, 90 * MIB, 30 * MIB, 30 * MIB)
    assert right.wrong() == []
    return right._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"accounts": {"reported": Account(100, 90, {"repeated": 9})}}, "1 B became of nothing"),
        ({"blocks": 50 * MIB}, "are said to be held"),
        ({"held": 60 * MIB, "blocks": 60 * MIB}, "43 MiB are held that the guest has free"),
        ({"held": 2 * MIB, "blocks": 2 * MIB}, "15 MiB are not held that the guest uses"),
    ],
)
def test_books_that_do_not_balance_are_seen(changes: dict[str, Any], sentence: str) -> None:
    """Bytes of which nothing became, a word that is not so, too much held, and too little."""
    (wrong,) = books(**changes).wrong()
    assert sentence in wrong


def test_accounts_are_those_of_the_ledger() -> None:
    """Reports and what was inflated, each with its own reasons."""
    ledger = dict.fromkeys(WORD_NAMES, 0)
    ledger |= {"reported_bytes": 9, "discarded_bytes": 4, "skipped_failed_bytes": 5}
    ledger |= {"inflate_reported_bytes": 8, "inflate_discarded_bytes": 7, "inflate_skipped_repeated_bytes": 1}
    assert accounts_of(ledger) == {
        "reported": Account(9, 4, {"failed": 5}),
        "inflated": Account(8, 7, {"repeated": 1}),
    }
