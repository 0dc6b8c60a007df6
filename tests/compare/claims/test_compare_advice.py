"""Advice by made-up figures: what is sound, what is near enough, what gains too little; and how it is written down."""

from pathlib import Path
from typing import Any

import pytest

from pagetide.commands.report import report
from pagetide.compare.claims.advice import advice_of
from pagetide.compare.claims.findings import findings_of
from pagetide.compare.claims.verdicts import Advice
from pagetide.compare.grid.setups import SETUPS
from pagetide.compare.grid.worker import Job, run_job
from pagetide.compare.report.documents import advice_markdown, findings_markdown
from pagetide.compare.results.cells import repeats_of
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import Store
from pagetide.machine.costs import read_costs
from pagetide.machine.settings.file import make_config
from tests.compare.made_up_runs import made_up_run

MIB = 1 << 20
STOP = "stop@14.9:6"


def runs_of(
    design: str, held_mib: float, cpu_s: float = 1.0, *, fault: str | None = None, failed: bool = False,
    settings: dict[str, Any] | None = None, **figures: Any,
) -> list[Run]:  # fmt: skip
    """Three runs of a design on the web server, in which the host held so much."""
    given = {"workload": "web", "design": design, "fault": [fault] if fault else [], **(settings or {})}
    told = {"mean_resident_bytes": held_mib * MIB, "guest_cpu_s": cpu_s, "duration_s": 30.0, **figures}
    return [made_up_run(make_config({**given, "seed": seed}), failed=failed, **told) for seed in (1, 2, 3)]


def advised(*runs: list[Run]) -> Advice:
    """Advice for the web server by these runs, beside 1000 MiB for 0.5 s without reporting."""
    everything = [*runs_of("off", 1000, 0.5), *(run for group in runs for run in group)]
    return advice_of(everything)[list(SETUPS).index("web")]


def test_the_least_footprint_is_chosen_with_its_figures() -> None:
    """What the host held, what it cost, the next one and the command are all told."""
    found = advised(runs_of("scan", 500, 0.75, refaulted_bytes=22 * MIB), runs_of("notify", 700))
    assert found.choice == "scan"
    assert "held 500 MiB on average instead of 1000 MiB (50 % less)" in found.why
    assert "takes 750 ms of CPU time, guest and host, instead of 500 ms, and 22 MiB refaulted" in found.costs
    assert "Next is notify, with 700 MiB" in found.costs
    assert found.command == "pagetide run --machine simulated --workload web"
    assert "mm/page_reporting.c" in found.linux
    assert len(found.runs) == 6


@pytest.mark.parametrize(
    "harm",
    [
        {"false_ooms": 1}, {"dropped_hints": 1}, {"stamp_errors": 1}, {"vcpu_wait_host_s": 0.07}, {"failed": True},
        {"unreturned_bytes": 30 * MIB},
    ],
)  # fmt: skip
def test_what_did_harm_once_is_not_chosen(harm: dict[str, Any]) -> None:
    """One fault under which it did harm is enough, however little the host held; without that it is the best."""
    quiet = runs_of("notify", 400), runs_of("scan", 500)
    control = [*runs_of("off", 1000, fault=STOP), *runs_of("scan", 600, fault=STOP)]
    assert advised(*quiet, control, runs_of("notify", 500, fault=STOP)).choice == "notify"
    assert advised(*quiet, control, runs_of("notify", 500, fault=STOP, **harm)).choice == "scan"


def test_what_a_slow_host_has_not_returned_yet_is_no_harm() -> None:
    """Only a fault that ended is to leave nothing behind."""
    slow = runs_of("scan", 600, fault="slow@0:60:50", unreturned_bytes=300 * MIB)
    assert advised(runs_of("scan", 500), slow).choice == "scan"


def test_a_wait_of_less_than_a_thousandth_is_sound() -> None:
    """Two vCPUs for 30 s may have waited for 60 ms."""
    assert advised(runs_of("scan", 500, vcpu_wait_host_s=0.059)).choice == "scan"
    assert advised(runs_of("scan", 500, vcpu_wait_host_s=0.061)).choice == "off"


@pytest.mark.parametrize(
    ("notify_mib", "notify_s", "choice"),
    [
        (500, 1.0, "notify"),  # less held, for as much
        (500, 2.0, "scan"),  # a little less held, for twice the time
        (470, 2.0, "notify"),  # more than a twentieth less
        (500, 1.015, "notify"),  # less held, for hardly more
    ],
)
def test_near_the_least_footprint_cpu_time_decides(notify_mib: float, notify_s: float, choice: str) -> None:
    """Within a twentieth the cheaper one is chosen; where they cost the same, the smaller one."""
    assert advised(runs_of("scan", 510, 1.0), runs_of("notify", notify_mib, notify_s)).choice == choice


@pytest.mark.parametrize(("held_mib", "choice"), [(985, "off"), (975, "scan")])
def test_a_gain_of_less_than_a_fiftieth_is_not_worth_it(held_mib: float, choice: str) -> None:
    """Then the advice is not to report, with the figures of the best one."""
    found = advised(runs_of("scan", held_mib))
    assert found.choice == choice
    assert f"held {held_mib} MiB on average instead of 1000 MiB" in found.why
    assert ("too little" in found.why) == (choice == "off")


def test_the_gain_is_that_on_the_same_stream() -> None:
    """Seeds differ by more than designs do: the gain is taken seed by seed."""
    off = [run for seed, held in enumerate((1000, 2000, 3000)) for run in runs_of("off", held)[seed : seed + 1]]
    scan = [run for seed, held in enumerate((900, 1990, 2990)) for run in runs_of("scan", held)[seed : seed + 1]]
    assert advice_of([*off, *scan])[list(SETUPS).index("web")].choice == "off"


def test_where_nothing_is_sound_reporting_stays_off() -> None:
    """And the sentence says how many there were."""
    found = advised(runs_of("scan", 500, false_ooms=1), runs_of("notify", 500, dropped_hints=1))
    assert found.choice == "off"
    assert "None of the 2 other configurations was sound" in found.why
    assert "free-page-reporting=off" in found.linux


def test_without_a_control_there_is_no_choice() -> None:
    """What was not run beside `off` and without a fault gives no advice, and neither does nothing."""
    for runs in ([], runs_of("scan", 500), runs_of("off", 1000, fault=STOP), runs_of("off", 1000, failed=True)):
        found = advice_of(runs)
        assert [one.choice for one in found] == [None] * 5
        assert [one.setup for one in found] == list(SETUPS.values())
        assert all(one.why and not one.command for one in found)


def test_a_choice_that_was_not_run_with_the_faults_says_so() -> None:
    """It counts as sound by what it was run on, and the reader is told."""
    faulty = [*runs_of("off", 1000, fault=STOP), *runs_of("notify", 700, fault=STOP)]
    told = "not run with a host that stops"
    assert told in advised(runs_of("scan", 500), runs_of("notify", 700), faulty).costs
    assert told not in advised(runs_of("scan", 500), faulty, runs_of("scan", 500, fault=STOP)).costs


def test_linux_is_told_how_to_do_the_same() -> None:
    """Another order is a parameter there; what it has not is said to be missing."""
    linux = advised(runs_of("scan", 500, settings={"order": 4})).linux
    assert "4 written to /sys/module/page_reporting/parameters/page_reporting_order once" in linux
    assert "newer than 6.1 also keeps page_reporting.page_reporting_order=4 from its command line" in linux
    assert "page_reporting_order" not in advised(runs_of("scan", 500)).linux
    for runs in (runs_of("cursor", 500), runs_of("scan", 500, settings={"cool": 2})):
        assert "no such configuration in Linux" in advised(runs).linux
    assert "with it the host held 700 MiB, for 2 s" in advised(runs_of("cursor", 500), runs_of("scan", 700, 2.0)).linux


def test_what_can_be_set_today_stands_beside_what_linux_lacks() -> None:
    """The best that is sound and settable, with its gain; and what the choice has that Linux does not, with its own."""
    found = advised(runs_of("cursor", 500), runs_of("scan", 700, 2.0, settings={"order": 4}), runs_of("scan", 990))
    assert found.choice == "cursor"
    assert [(each.where, each.what) for each in found.today] == [
        ("QEMU", "-device virtio-balloon-pci,free-page-reporting=on"),
        ("libvirt", "<memballoon model='virtio' freePageReporting='on'/>"),
        ("guest", "CONFIG_PAGE_REPORTING"),
        ("guest", "echo 4 >/sys/module/page_reporting/parameters/page_reporting_order"),
        ("guest", "page_reporting.page_reporting_order=4"),
    ]
    assert found.today_gain == (
        "Expected: with scan, order 4 the host holds 30 % less than without reporting (700 MiB on average), for 2 s of "
        "CPU time instead of 500 ms."
    )
    assert found.missing.startswith("cursor: the design cursor is not in Linux; with cursor the host holds 50 % less")
    cool = advised(runs_of("scan", 500, settings={"cool": 2}), runs_of("scan", 990))
    assert "no option for reporting only what has been free for some time" in cool.missing
    assert cool.today_gain == "Nothing that Linux has gains enough."
    assert cool.today[0].what.endswith("free-page-reporting=off")
    timer = advised(runs_of("scan", 500, settings={"wake": "timer"}), runs_of("scan", 600))
    assert "no option for being woken by timer" in timer.missing
    assert "with scan the host holds 40 % less" in timer.today_gain


def test_a_choice_that_linux_has_lacks_nothing() -> None:
    """Reporting as it is, the balloon, or neither."""
    scan, balloon, neither = (
        advised(runs_of(name, mib)) for name, mib in (("scan", 500), ("balloon", 500), ("scan", 999))
    )
    assert [found.missing for found in (scan, balloon, neither)] == ["", "", ""]
    assert scan.today_gain.startswith("Expected: with scan the host holds 50 % less")
    assert balloon.today[0].what.endswith("deflate-on-oom=on")
    assert neither.today[0].what.endswith("free-page-reporting=off")
    text = advice_markdown([scan])
    assert "| libvirt | `<memballoon model='virtio' freePageReporting='on'/>` | 6.9 and newer |" in text
    assert "What Linux does not have" not in text


def test_markdown_has_every_set_up_and_every_claim() -> None:
    """A section and a command for each set-up, a row and a sentence for each claim, and no markup by chance."""
    given = [advised(runs_of("scan", 500)), Advice(setup="a | b", choice=None, why="x_y *z* <i>")]
    text = advice_markdown(given)
    assert "## A web server that is mostly idle\n\n**scan**. With it the host held 500 MiB" in text
    assert "```\npagetide run --machine simulated --workload web\n```" in text
    assert "## A \\| b\n\n**No choice**. x\\_y \\*z\\* \\<i\\>" in text
    found = findings_of([])
    claims = findings_markdown(found)
    assert sum(line.startswith("| ") for line in claims.splitlines()) == len(found) + 1
    assert all(f"- **{one.claim_id}, not tested.** " in claims for one in found)


def test_a_page_is_made_of_a_folder_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pagetide report DIR --markdown`: real runs, from the simulation to a page that says how it was made."""
    tiny = {"workload": "web", "ram": "32MiB", "duration": 1.0, "rate": 50.0, "order": 4, "delay": 0.1}
    configs = [make_config({**tiny, "design": design}) for design in ("off", "cursor")]
    with Store.create(tmp_path / "results") as store:
        for cell in [cell for config in configs for cell in repeats_of(config, "simulated", 2)]:
            store.add(run_job(Job(cell, read_costs(), "built in")))
        assert not any(run.failed for run in store.runs())
    assert report(tmp_path / "results", None, None, "-") == 0
    shown = capsys.readouterr().out
    assert report(tmp_path / "results", None, None, str(tmp_path / "page.md")) == 0
    assert (tmp_path / "page.md").read_text() == shown
    assert "Made of 4 runs (simulated; 0 failed)" in shown
    assert "pagetide report DIR --markdown FILE" in shown
    assert "pagetide run --machine simulated --workload web --design" in shown
    assert "| S17 |" in shown
