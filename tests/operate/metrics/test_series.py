"""Guests' series: what is written of what was told, and what becomes of guests that come back or stay away."""

from collections.abc import Callable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from pagetide.host.device.figures import ROUND_US
from pagetide.host.memory import ledger
from pagetide.operate.metrics import series
from pagetide.operate.metrics.accounts import REMEMBERED_S, Accounts, Row
from pagetide.operate.metrics.exposition import END, Text
from pagetide.operate.metrics.told import ToldSocket
from pagetide.virtio.balloon import Queue, Stat
from tests.operate.metrics.told_guest import told_guest

HOSTILE = 'a\\b"c\nd%s{x}'


def families(rows: list[Row], *, openmetrics: bool = True) -> dict[str, Metric]:
    """What the library reads of the text, by the family's name."""
    text = Text(openmetrics=openmetrics)
    for row in rows:
        text.add([row])
    whole = (b"".join(text.pieces()) + (END if openmetrics else b"")).decode()
    read = read_openmetrics if openmetrics else read_plain
    return {family.name: family for family in read(whole)}


def value(families: dict[str, Metric], name: str, sample: str, **labels: str) -> float:
    """The only sample with these labels."""
    (found,) = [each for each in families[name].samples if each.name == sample and each.labels == labels]
    return found.value


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("openmetrics", [True, False])
def test_the_library_reads_what_was_told(openmetrics: bool) -> None:
    """Every figure under its name, with what cannot be in a label escaped; a histogram that the parser accepts."""
    within = [min(place, 7) for place in range(len(ROUND_US))]
    guest = told_guest(
        HOSTILE, reported_bytes=10, returned_bytes=3, inflate_returned_bytes=4, skipped_poisoned_bytes=5,
        held_bytes=1 << 40, statistics={"memfree": 77, "oom_kill": 2}, waiting={"reporting": 6}, state="needs reset",
        waited=(8, 2_500_000), within=within, allowance_spent_s=0.125,
    )  # fmt: skip
    read = families(list(Accounts(Clock()).attached([guest, told_guest("other")])), openmetrics=openmetrics)
    prefix = "pagetide_guest"
    for name, labels, wanted in (
        ("reported_bytes_total", {}, 10),
        ("returned_bytes_total", {"by": "report"}, 3),
        ("returned_bytes_total", {"by": "balloon"}, 4),
        ("skipped_bytes_total", {"reason": "poisoned"}, 5),
        ("held_bytes", {}, 1 << 40),
        ("own_free_memory_bytes", {}, 77),
        ("own_oom_kills_total", {}, 2),
        ("waiting_elements", {"queue": "reporting"}, 6),
        ("state", {"state": "needs reset"}, 1),
        ("allowance_spent_seconds_total", {}, 0.125),
        ("attached", {}, 1),
    ):
        family = f"{prefix}_{name.removesuffix('_total')}"
        assert value(read, family, f"{prefix}_{name}", guest=HOSTILE, **labels) == wanted
    lag = f"{prefix}_report_lag_seconds"
    assert value(read, lag, f"{lag}_bucket", guest=HOSTILE, le="+Inf") == value(
        read, lag, f"{lag}_count", guest=HOSTILE
    )
    assert value(read, lag, f"{lag}_bucket", guest=HOSTILE, le="0.00025") == 1
    assert value(read, lag, f"{lag}_sum", guest=HOSTILE) == 2.5
    assert f"{prefix}_own_cache_bytes" not in read, "nobody told of it"
    if openmetrics:
        assert {family.name: family.unit for family in read.values()} == {
            family.name: family.unit for family in series.FAMILIES if family.name in read
        }


def test_the_names_are_those_of_the_daemon() -> None:
    """Reasons, queues and statistics that were added there, and not here, would be told of nowhere."""
    assert set(ledger.SKIP_REASONS) == set(series.SKIP_REASONS)
    assert set(series.WORDS) < set(ledger.WORD_NAMES)
    labels = [label for family in series.PRESENT if "waiting" in family.name for _, label in family.series]
    assert labels == [f'queue="{queue.name.lower()}"' for queue in Queue]
    names = {stat.name.lower() for stat in Stat}
    told = series.present_values(told_guest("a", statistics=dict.fromkeys(names, 1)))
    assert None not in told[len(told) - 12 :]


def test_counters_go_on_when_a_guest_comes_back() -> None:
    """A new account adds to what the earlier ones came to, histogram and errors with it; gauges are what they are."""
    accounts = Accounts(Clock())
    first = told_guest("a", 1, reports=5, wrong=(1, 0, 0), allowance_spent_s=0.5)
    list(accounts.attached([first]))
    second = told_guest("a", 2, reports=9, held_bytes=1, waited=(1, 1), allowance_spent_s=0.25)
    read = families(list(accounts.attached([second])))
    assert value(read, "pagetide_guest_reports", "pagetide_guest_reports_total", guest="a") == 14
    errors = "pagetide_guest_errors"
    assert value(read, errors, f"{errors}_total", guest="a", kind="ring") == 1
    assert value(read, "pagetide_guest_held_bytes", "pagetide_guest_held_bytes", guest="a") == 1
    third = told_guest("a", 2, reports=10, allowance_spent_s=0.25)
    read = families(list(accounts.attached([third])))
    assert value(read, "pagetide_guest_reports", "pagetide_guest_reports_total", guest="a") == 15
    spent = "pagetide_guest_allowance_spent_seconds"
    assert value(read, spent, f"{spent}_total", guest="a") == 0.75


def _waiting(accounts: Accounts) -> list[Row]:
    return list(accounts.waiting([ToldSocket("a", 1)]))


def _gone(accounts: Accounts) -> list[Row]:
    return list(accounts.gone({"b"}))


@pytest.mark.parametrize("rows", [_waiting, _gone])
def test_a_guest_that_left_is_remembered_for_a_while(rows: Callable[[Accounts], list[Row]]) -> None:
    """Its counters, with or without its socket, and no gauge; later it is forgotten, and who comes begins at 0."""
    clock = Clock()
    accounts = Accounts(clock)
    list(accounts.attached([told_guest("a", reports=5)]))
    clock.now_s += REMEMBERED_S
    read = families(rows(accounts))
    assert value(read, "pagetide_guest_reports", "pagetide_guest_reports_total", guest="a") == 5
    assert value(read, "pagetide_guest_attached", "pagetide_guest_attached", guest="a") == 0
    assert "pagetide_guest_held_bytes" not in read
    clock.now_s += 1
    assert "pagetide_guest_reports" not in families(rows(accounts))
    (again,) = accounts.attached([told_guest("a", 2, reports=2)])
    read = families([again])
    assert value(read, "pagetide_guest_reports", "pagetide_guest_reports_total", guest="a") == 2
