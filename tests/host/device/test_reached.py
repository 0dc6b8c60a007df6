"""What the host must reach, at test size: the benchmarks' own measurements, with fewer guests and rounds.

All of it is CPU time, of which a noisy machine tells the median of many rounds and not that of few.
"""

import itertools
from pathlib import Path

import pytest

from benchmarks.host import against_qemu, discarding, many_guests
from benchmarks.host.bare_punch import BarePunch
from benchmarks.rows import Row
from pagetide.host.device.allowance import WANTED, Use
from pagetide.host.guest.attached import AttachedGuest
from pagetide.machine.live import host_warm_up
from pagetide.units import PAGE_SIZE_BYTES

pytestmark = [pytest.mark.jit, pytest.mark.alone]


def missed(rows: list[Row]) -> list[Row]:
    """What is not as good as is asked."""
    return [row for row in rows if row.ok is False]


def test_busy_guests_are_served_alike(tmp_path: Path) -> None:
    """Of 16 guests whose queues are always full none gets less than half of its fair share."""
    with many_guests.server_process(tmp_path) as server:
        assert not missed(many_guests.busy(server, 16, 1.5))


def test_a_guest_that_is_passed_over_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test can fail: where one guest has every eighth of its turns only, it gets less than half of its share."""
    turn, turns = AttachedGuest.turn, itertools.count()

    def unfair(guest: AttachedGuest) -> Use:
        return WANTED if guest.name.endswith("-7") and next(turns) % 8 else turn(guest)

    monkeypatch.setattr(AttachedGuest, "turn", unfair)
    with many_guests.server_process(tmp_path) as server:
        rows = many_guests.busy(server, 16, 0.5)
        assert [row.ok for row in rows] == [None, False]


def test_idle_guests_cost_nothing(tmp_path: Path) -> None:
    """50 guests that do nothing take less than 2 % of a CPU together, and less than 1 MiB of memory each."""
    with many_guests.server_process(tmp_path) as server:
        assert not missed(many_guests.idle(server, 50, 1.5))


@pytest.mark.parametrize(
    "case",
    [
        # The figure asked is 2.0, and measured is 2.5 to 3.4; hours of soaks later the same machine had 1.8 to 2.1.
        # Where ranges are not joined, which this is to notice, it had 1.0.
        pytest.param(against_qemu.Case(PAGE_SIZE_BYTES, 32, 24, 1.5), id="adjacent 4 KiB"),
        # The figure asked is 1.0, and measured is parity: 240 rounds tell 0.99 from 1.01, and 24 do not.
        pytest.param(against_qemu.Case(2 << 20, 4, 24, 0.9), id="2 MiB"),
    ],
)
def test_discarding_costs_no_more_than_in_qemu(case: against_qemu.Case) -> None:
    """Bytes discarded a host CPU second, ours by those of a stock QEMU's device."""
    assert not missed(against_qemu.compare(case))


def test_a_report_costs_little_besides_its_punches() -> None:
    """32 scattered blocks of 4 KiB: most of the time goes into punching; in µs that is each machine's own figure."""
    # The figure asked is 1.0, and measured is 0.98 (docs/figures.md), by 20 rounds; 12 beside other tests tell less.
    case = next(case for case in discarding.CASES if case.block_bytes == PAGE_SIZE_BYTES)._replace(at_least=0.9)
    punch = BarePunch()
    host_warm_up.warm_up_host()
    assert not missed([row for row in discarding.against_bare(case, punch, 12) if row.unit == "ratio"])
