"""From options to cells."""

from typing import Any, get_args

import pytest

from pagetide.compare.grid.axes import STOP_SHARE, Choice, grouped, make_grid
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import LeftOut
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.config import Workload
from pagetide.machine.config_error import ConfigError
from pagetide.machine.faults import SECONDS_MAX
from pagetide.machine.workloads import make_stream

LIVE_DEFAULT = make_grid(Choice(machine="live"))


def test_the_default_grid_is_every_design_on_every_workload_with_and_without_faults() -> None:
    """Eleven designs, six workloads, no fault and two, three repeats; nothing is left out of it on a live machine."""
    cells, left_out = LIVE_DEFAULT
    assert len({cell.key for cell in cells}) == len(cells) == len(DESIGNS) * 6 * 3 * 3
    assert left_out == []
    assert {cell.config.design for cell in cells} == set(DESIGNS)
    assert {cell.config.workload for cell in cells} == set(get_args(Workload))
    assert {cell.config.seed for cell in cells} == {1, 2, 3}
    assert {cell.config.oom for cell in cells} == {"wait"}


def test_what_does_not_fit_is_left_out_with_its_sentence() -> None:
    """Every combination is a cell or is named as left out, and why."""
    cells, left_out = make_grid(
        Choice(designs=("scan", "shared", "balloon"), workloads=("burst",), oom=("wait", "swap"), machine="live")
    )
    assert len(cells) == 3 * 3 * 4  # repeats, faults, and of six pairs of design and oom four
    assert len(left_out) == 3 * 2
    assert LeftOut("balloon on burst, fault stop, oom swap", _why(left_out, "balloon")) in left_out
    assert "oom must be wait" in _why(left_out, "balloon")
    sentences = list(grouped(left_out))
    assert len(sentences) == 2
    assert sum(" and 2 more: " in sentence for sentence in sentences) == 2


def _why(left_out: list[LeftOut], design: str) -> str:
    return next(one.why for one in left_out if one.what.startswith(design))


def test_what_only_a_live_machine_has_is_no_simulated_grid() -> None:
    """QEMU's device, say: nothing is left of the simulated grid, and the sentence says why."""
    settings = {"device": "qemu", "ram": "64MiB"}
    assert make_grid(Choice(designs=("scan",), settings=settings, machine="live")).cells
    with pytest.raises(ConfigError, match="the simulated machine has our device only"):
        make_grid(Choice(designs=("scan",), settings=settings))


@pytest.mark.parametrize("workload", get_args(Workload))
def test_the_stop_meets_frees_and_leaves_time_to_recover(workload: str) -> None:
    """In every workload and with every seed memory is freed while the host is stopped; the clock goes on after it."""
    stopped = [
        cell for cell in LIVE_DEFAULT.cells
        if cell.config.workload == workload and cell.config.design == "scan" and _kinds(cell) == {"stop"}
    ]  # fmt: skip
    assert len(stopped) == 3
    for cell in stopped:
        (fault,) = cell.config.parsed_faults
        stream = make_stream(cell.config)
        freed = (stream.kind == 1) & (stream.at_s >= fault.start_s) & (stream.at_s < fault.start_s + fault.for_s)
        freed_bytes = int((4096 << stream.order[freed].astype(int)).sum())
        assert freed_bytes > cell.config.ram_bytes / 20
        assert fault.start_s + fault.for_s < 0.75 * stream.end_s


def _kinds(cell: Cell) -> set[str]:
    return {fault.kind for fault in cell.config.parsed_faults}


def test_the_slow_host_is_slow_for_the_whole_run() -> None:
    """It begins before anything is freed, and lasts twice as long as the workload's clock."""
    slow = [cell.config for cell in LIVE_DEFAULT.cells if _kinds(cell) == {"slow"}]
    assert len(slow) == len(DESIGNS) * 6 * 3
    for config in slow:
        (fault,) = config.parsed_faults
        assert (fault.start_s, fault.for_s, fault.factor) == (0.0, 60.0, 50.0)


def test_all_designs_run_the_same_schedule() -> None:
    """The operations of a condition and repeat do not depend on the design, and no burst waits for a design."""
    first, *others = [
        cell.config for cell in LIVE_DEFAULT.cells
        if cell.config.workload == "burst" and cell.repeat == 1 and not cell.config.faults
    ]  # fmt: skip
    stream = make_stream(first)
    assert not any(mark.settle for mark in stream.marks)
    for other in others:
        assert all((stream.columns[name] == column).all() for name, column in make_stream(other).columns.items())


def test_the_times_of_faults_follow_the_workload_s_length() -> None:
    """With a shorter duration the host stops sooner, and for less long."""
    settings = {"duration": 10.0}
    choice = Choice(designs=("scan",), workloads=("web",), faults=("stop", "slow"), settings=settings, machine="live")
    assert {cell.config.faults for cell in make_grid(choice).cells} == {("stop@4.9:2",), ("slow@0:20:50",)}


def test_faults_may_be_written_out_and_joined() -> None:
    """One condition may have several."""
    choice = Choice(designs=("scan",), workloads=("web",), faults=("stop@5:1+ring=8",), repeat=1, machine="live")
    (cell,) = make_grid(choice).cells
    assert cell.config.faults == ("stop@5:1", "ring=8")


def test_quick_is_the_mails_case_once_for_each_design() -> None:
    """One burst of a guest of 1 GiB with small arrays of hints, the host stopped as it is freed."""
    cells, left_out = make_grid(Choice(quick=True, machine="live"))
    assert left_out == []
    assert [cell.config.design for cell in cells] == list(DESIGNS)
    for config in (cell.config for cell in cells):
        assert (config.workload, config.ram_bytes, config.bursts) == ("burst", 1 << 30, 1)
        assert config.hints_max == (16 if config.design in ("notify-array", "hybrid") else 256)
        (fault,) = config.parsed_faults
        assert fault.kind == "stop"
        assert fault.start_s < config.hold_s < fault.start_s + fault.for_s


@pytest.mark.parametrize("duration_s", [86399.9, 12345.678901, 0.35])
def test_times_of_faults_are_written_with_all_their_digits(duration_s: float) -> None:
    """A day's stop is not moved by seconds, nor shortened."""
    choice = Choice(designs=("scan",), workloads=("web",), faults=("stop", "slow"), repeat=1,
                    settings={"duration": duration_s, "rate": 10.0})  # fmt: skip
    stop, slow = (cell.config.parsed_faults[0] for cell in make_grid(choice).cells)
    assert stop.start_s == pytest.approx(duration_s / 2 - 0.1, abs=1e-6)
    assert stop.for_s == pytest.approx(STOP_SHARE * duration_s, abs=1e-6)
    assert slow.for_s == pytest.approx(min(2 * duration_s, SECONDS_MAX), abs=1e-6)


def test_settings_go_into_every_run() -> None:
    """What is given overrides a workload's defaults, and seeds follow each other from the first one."""
    settings = {"ram": "64MiB", "seed": 7}
    cells, _ = make_grid(Choice(designs=("scan",), faults=("none",), settings=settings, repeat=2, machine="live"))
    assert {cell.config.ram_bytes for cell in cells} == {64 << 20}
    assert {cell.config.seed for cell in cells} == {7, 8}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"designs": ("best",)}, "there is no design 'best'; choose from off, sync,"),
        ({"workloads": ("idle",)}, "there is no workload 'idle'; choose from burst, web,"),
        ({"oom": ("pray",)}, "there is no answer to OOM 'pray'; choose from none, wait, cap, swap"),
        ({"faults": ("stopp",)}, "'stopp' is no fault; there are stop@T:D"),
        ({"faults": ("stop@1:2+stop@2:2",)}, "are both on at 2 s"),
        ({"repeat": 0}, "from 1 to 1000 repeats, not 0"),
        ({"settings": {"order": 11}}, "the order must be from 0 to 10, not 11"),
        ({"settings": {"seed": (1 << 63) - 2}}, "the seeds of 3 repeats must stay below 2"),
        ({"designs": ("balloon",), "oom": ("swap",)}, "with balloon oom must be"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    """A name that there is not is never just left out; and a grid of nothing is an error."""
    with pytest.raises(ConfigError, match=sentence):
        make_grid(Choice(machine="live", **fields))
