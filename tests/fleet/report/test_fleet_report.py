"""The report of a fleet: its figures are those of the summary, what it says follows from them, and it fits a phone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from pagetide.fleet.hosts.answering.answer import Answer
from pagetide.fleet.hosts.cluster import Question
from pagetide.fleet.hosts.host import Host
from pagetide.fleet.learning.chosen import Chosen
from pagetide.fleet.learning.responses import Learned
from pagetide.fleet.report.classes import CLASSES, classes
from pagetide.fleet.report.findings import findings
from pagetide.fleet.report.pictures import heat
from pagetide.fleet.report.told import Told, design_of
from pagetide.fleet.runs.store import Results
from pagetide.fleet.runs.summary import Interval, PlanSummary, SettingSummary, Summary
from pagetide.fleet.usage.canonical import Grid
from pagetide.fleet.usage.oddities import Oddities
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.machine.costs import read_costs
from pagetide.units import GIB
from tests.commands.chromium import Page
from tests.fleet.runs.small_fleet import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fleet with its report."""
    folder = tmp_path_factory.mktemp("fleet") / "told"
    assert run(folder) == 0
    return folder


def test_the_page_is_whole_and_has_every_setting(folder: Path) -> None:
    """No script, nothing from elsewhere; each setting has a row with what the summary says."""
    text = (folder / "report.html").read_text()
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|@import|<link", text)
    for one in json.loads((folder / "summary.json").read_bytes())["settings"]:
        row = re.search(rf'<tr data-setting="{one["name"]}">(.*?)</tr>', text)
        assert row is not None
        assert f"<td>{one['mean_bytes'] / GIB:.3g}<small>" in row[1]
    for said in ("an upper bound", "Two bounds need no model", "by how use moves".capitalize(), "The risk is a mean"):
        assert said in text
    assert len(re.findall(r"clusters? of at most 8\b", text)) == 2
    assert re.search(r"<strong>Unknown time</strong> is 0.00%", text)
    assert re.search(r"is not placed: 24 of 24\s+are", text)


def test_a_check_is_in_the_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `fleet check --json` prints it, each setting with whether it is within the limits; another file is refused."""
    verdict = {"setting": "linux-9", "guest": "anywhere", "simulated": 0.3, "modelled": 0.25, "mean_off": 0.02}
    checked = tmp_path / "check.json"
    checked.write_text(json.dumps({"about": "a fleet", "verdicts": [{**verdict, "most_off": 0.1667}], "days": []}))
    assert run(folder, f"--resume --checked {checked}") == 0
    row = re.search(r"<th>linux-9</th><td>anywhere</td>(.*?)</tr>", (folder / "report.html").read_text())
    assert row is not None
    assert re.findall("<td>(.*?)</td>", row[1]) == ["30.00%", "25.00%", "2.00%", "16.67%", "no"]
    checked.write_text("{}")
    assert run(folder, f"--resume --checked {checked}") == 2
    assert "does not hold a check as" in capsys.readouterr().err


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_add_up_to_the_fleet(folder: Path, kind: str) -> None:
    """Every VM is in one class, with all that is held for it under each setting."""
    summary = json.loads((folder / "summary.json").read_bytes())
    with Results.open(folder) as results:
        found = classes(results, kind, len(summary["settings"]), summary["grid"]["steps"])
    assert sum(one.vms for one in found) == summary["vms"]
    for number, setting in enumerate(summary["settings"]):
        assert sum(one.held_bytes[number] for one in found) == pytest.approx(setting["mean_bytes"])


def plan_of(name: str, dense: float, pressed_h: float) -> PlanSummary:
    """A plan's figures."""
    return PlanSummary(
        plan=name, hosts=1, vms_a_host=Interval(dense, None), pressed_h=Interval(pressed_h, None), over_mean_bytes=0,
        over_most_bytes=GIB, begun=0, answer=Answer(),
    )  # fmt: skip


def told(
    held_gib: tuple[float, float, float], vms: tuple[float, float], *, more: tuple[float, float] | None = None,
    setting: str = "linux-9", left: float = 0.4, shares: tuple[float, float] | None = (1.0, 0.625),
) -> Told:  # fmt: skip
    """What returns nothing, a learned setting and what returns all, as figures that were made up.

    Args:
        held_gib: what is held on average under each.
        vms: how many VMs fit on a host where nothing returns, and otherwise.
        more: of another plan, VMs a host and hours of pressure.
        setting: the name of the learned setting.
        left: what guests leave behind under it.
        shares: in which shares of draws it is denser, and within the risk; None without draws.
    """
    settings = []
    names = ("nothing", f"{setting}, anywhere", "all")
    for name, gib, dense in zip(names, held_gib, (*vms, vms[1]), strict=True):
        plans = [plan_of("quantile:0.9", dense, 0.5)] + ([plan_of("quantile:0.5", *more)] if more else [])
        settings.append(
            SettingSummary(
                name=name,
                mean_bytes=gib * GIB,
                mean_between_bytes=(0, 1) if shares else None,
                most_bytes=gib * GIB,
                most_at_s=0,
                mosts_bytes=2 * gib * GIB,
                returned_bytes=0,
                refaulted_bytes=0,
                reports_cpu_s=1.0,
                refaults_cpu_s=2.0,
                cpu_between_s=(2.5, 3.5) if shares else None,
                plans=tuple(plans),
                densest="quantile:0.9",
                density=plans[0].vms_a_host,
                within_share=shares[1] if shares else None,
                denser_share=shares[0] if shares else None,
            )
        )
    learned = Learned(
        setting=setting,
        guest="anywhere",
        return_s=2.0,
        left=(0.0, left, 0.0),
        fades=0,
        keeps=0,
        keeps_bytes=0,
        off_share=0,
    )
    chosen = Chosen(name=setting, guest="anywhere", parts=(learned,), shares=(1.0,))
    question = Question((), Host(GIB, 0, 0), "swap", 40 if shares else 0, 1)
    found = Summary(10, 10.0, 100.0, 0.0, 10, 1.0, tuple(settings))
    return Told(
        about="made up", grid=Grid(0, 300, 288), oddities=Oddities(), question=question, found=found,
        results=None, versions={}, chosen=[chosen], costs=read_costs(),  # type: ignore[arg-type]
    )  # fmt: skip


def said(one: Told) -> str:
    """All findings in one text."""
    return " ".join(findings(one))


def test_what_is_said_follows_from_the_figures() -> None:
    """Whether there is something to win, and whether more VMs fit."""
    won = said(told((100, 70, 40), (10, 20)))
    assert "60 GiB (60%) are not in use" in won
    assert "linux-9, anywhere: 30 GiB of these come back (50%)" in won
    assert "20 VMs fit on one under linux-9, anywhere (quantile:0.9), and 10 where nothing returns" in won
    assert "2 times as many" in won
    assert "off, anywhere: nothing of these comes back; 101 GiB are held" in said(
        told((100, 101, 40), (10, 20), setting="off")
    )
    assert "hardly anything to win" in said(told((100, 99, 98), (10, 11)))
    nothing_fits = told((100, 70, 40), (10, 20))
    first, *others = nothing_fits.found.settings
    without = nothing_fits.found._replace(settings=(replace(first, density=None), *others))
    assert "Not under every setting" in said(nothing_fits._replace(found=without))


def test_other_vms_are_told_of_only_if_some_were_drawn() -> None:
    """In which share of the draws more fit, and the plan is within the risk; without draws not a word of it."""
    drawn = said(told((100, 70, 40), (10, 20), shares=(0.9, 0.625)))
    assert "It is more in 90% of 40 draws" in drawn
    assert "quantile:0.9 stays within that risk in 62% of them" in drawn
    assert "for VMs like these" in drawn
    undrawn = said(told((100, 70, 40), (10, 20), shares=None))
    assert "2 times as many." in undrawn
    assert not re.search("draw|VMs like these|whichever", undrawn)


def test_the_order_is_blamed_only_for_what_it_leaves_behind() -> None:
    """Not where there is no lower order or none at all, nothing is reported, or guests leave nothing behind."""
    held = (100.0, 70.0, 40.0)
    assert "30 GiB more than is used stay with hosts" in said(told(held, (10, 20)))
    assert "more than is used stay" in said(told(held, (10, 20), setting="pool"))
    assert "up to 40% of their highest use" in said(told(held, (10, 20)))
    for one in (
        told(held, (10, 20), setting="linux-0"),
        told(held, (10, 20), setting="off"),
        told(held, (10, 20), setting="balloon"),
        told(held, (10, 20), left=0.01),
        told((100.0, 41.0, 40.0), (10, 20)),
    ):
        assert "more than is used stay" not in said(one)


def test_it_gets_steep_only_with_more_vms_and_clearly_more_hours() -> None:
    """A plan that has no more VMs on a host is nobody's temptation, and what is hardly beyond the risk not steep."""
    steep = said(told((100, 70, 40), (10, 20), more=(30, 9)))
    assert "quantile:0.5 puts 30 VMs on a host" in steep
    assert "on average short for 9 of 720 h a month" in steep
    for more in ((20.0, 9.0), (15.0, 9.0), (30.0, 1.5), None):
        assert "gets steep" not in said(told((100, 70, 40), (10, 20), more=more))


def test_the_heat_map_covers_every_span_once() -> None:
    """Each level's pieces, put together, are the map; what is above a host's room has the last level."""
    shares = np.array([[0.1, 0.1, 0.6, 1.2], [1.0, 1.0, 0.97, 0.2]], np.float32)
    found = heat(shares)
    assert (found.hosts, found.spans) == (2, 4)
    assert found.paths == ("M0 0h2v1h-2zM3 1h1v1h-1z", "M2 0h1v1h-1z", "", "", "M0 1h3v1h-3z", "M3 0h1v1h-1z")


def test_a_setting_has_its_designs_colour() -> None:
    """Whatever its order; the bounds have that of the control."""
    names = ("linux-9, last", "linux-10, anywhere", "pool-0, last", "shared, last", "nothing returns")
    assert [design_of(name) for name in names] == ["scan", "scan", "pool", "shared", "off"]
    assert {design_of(name) for name in names} <= set(DESIGNS)


@pytest.mark.slow
@pytest.mark.xdist_group("chromium")
def test_it_fits_a_desk_and_a_phone_light_and_dark(folder: Path, tmp_path: Path) -> None:
    """No wider than the window, no picture without size, and nothing that the browser complains of."""
    with Page(tmp_path) as page:
        for width in (1280, 400):
            for dark in (False, True):
                page.open(folder / "report.html", width=width, dark=dark)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                sizes = page.evaluate(
                    "[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().height)"
                )
                assert min(sizes) > 10
        assert page.troubles == []
