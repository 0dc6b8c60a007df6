"""Sorting runs out: the work makes the condition, all else the configuration, and the seed the repeat."""

from msgspec.structs import replace

from pagetide.compare.report.condition_table import table_of
from pagetide.compare.results.conditions import conditions_of
from pagetide.machine.settings.file import make_config
from tests.compare.made_up_runs import made_up_repeats, made_up_run

GIB = 1 << 30


def held(*each_gib: float) -> list[dict[str, float]]:
    """Figures of runs in which the host held so much."""
    return [{"mean_resident_bytes": gib * GIB, "mean_used_bytes": 0.5 * GIB} for gib in each_gib]


def test_designs_on_the_same_work_are_one_condition() -> None:
    """Design, order and answer to OOM differ within a condition; workload and fault make another."""
    runs = [
        *made_up_repeats({"design": "scan"}, *held(1, 2)),
        *made_up_repeats({"design": "off"}, *held(3, 3)),
        *made_up_repeats({"design": "scan", "order": 0}, *held(1)),
        *made_up_repeats({"design": "scan", "fault": ["stop@0.9:6"]}, *held(1)),
        *made_up_repeats({"design": "scan", "workload": "web"}, *held(1)),
    ]
    first, *others = conditions_of(runs)
    assert [one.label for one in first.configurations] == ["off", "scan", "scan, order 0"]
    assert [len(one.runs) for one in first.configurations] == [2, 2, 1]
    assert {one.title for one in others} == {
        "burst, the host stands still for 6 s, 0.9 s into the work",
        "web, no fault",
    }
    assert len({one.name for one in (first, *others)}) == 3


def test_a_setting_without_an_effect_is_not_in_a_label() -> None:
    """Saved runs without `split` have it as it was then: on small pages that is no difference."""
    for backing, label in (("memfd", "pool"), ("hugetmpfs", "pool, split True")):
        config = make_config({"design": "pool", "backing": backing})
        ((one,),) = (both.configurations for both in conditions_of([made_up_run(replace(config, split=True))]))
        assert one.label == label


def test_a_share_of_off_is_that_of_the_same_seed() -> None:
    """The control of each repeat is its own, and without one there is no share."""
    runs = made_up_repeats({"design": "scan"}, *held(1, 1, 1)) + made_up_repeats({"design": "off"}, *held(2, 4))
    (condition,) = conditions_of(runs)
    off, scan = table_of(condition).rows
    spread = off.spreads["footprint_of_off_percent"]
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == (100, 100, 100)
    assert scan.spreads["footprint_of_off_percent"] is None
    (condition,) = conditions_of(run for run in runs if run.cell.config.seed < 3)
    spread = table_of(condition).rows[1].spreads["footprint_of_off_percent"]
    assert spread is not None
    assert (spread.low, spread.high) == (25, 50)


def test_the_control_is_never_best() -> None:
    """`off` takes no CPU time for reporting, and is not marked for that; the best of the others is."""
    runs = [
        *made_up_repeats({"design": "off"}, *[{"guest_cpu_s": 1.0}] * 3),
        *made_up_repeats({"design": "scan"}, *[{"guest_cpu_s": 3.0}] * 3),
        *made_up_repeats({"design": "cursor"}, *[{"guest_cpu_s": 2.0}] * 3),
    ]
    (condition,) = conditions_of(runs)
    table = table_of(condition)
    assert {name: table.rows[row].configuration.design for name, row in table.best.items()} == {"guest_cpu_s": "cursor"}


def test_failed_runs_count_in_no_figure() -> None:
    """They are told of apart from the others."""
    (condition,) = conditions_of(
        [*made_up_repeats({}, *held(1)), made_up_run(failed=True, mean_resident_bytes=9 * GIB)]
    )
    (one,) = condition.configurations
    assert (len(one.runs), len(one.failed)) == (1, 1)
    spread = table_of(condition).rows[0].spreads["footprint_gib"]
    assert spread is not None
    assert spread.high == 1
