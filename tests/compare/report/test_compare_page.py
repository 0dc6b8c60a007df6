"""The page as text: whole HTML, nothing from elsewhere, and nothing twice."""

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from jinja2 import UndefinedError

from pagetide.compare.claims.bars import Bar, Bars, Bound
from pagetide.compare.claims.verdicts import Advice, Finding
from pagetide.compare.grid.worker import Job, run_job
from pagetide.compare.report.claim_bars import draw_bars
from pagetide.compare.report.condition_table import number
from pagetide.compare.report.page import advice_body, claims_body, findings_body, troubles_body
from pagetide.compare.report.templating import html as filled
from pagetide.compare.report.writing import write_report
from pagetide.compare.results.cells import repeats_of
from pagetide.compare.results.conditions import conditions_of
from pagetide.compare.results.orders import order_curves
from pagetide.compare.results.records import LeftOut
from pagetide.compare.results.spread import Spread
from pagetide.compare.results.store import Store
from pagetide.compare.results.wording import fault_words
from pagetide.machine.costs import read_costs
from pagetide.machine.settings.file import make_config
from pagetide.pages.whole import Section, facts, page
from tests.compare.made_up_runs import made_up_repeats

pytestmark = pytest.mark.xdist_group("compare page")

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Counts identifiers and links, and minds that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        """Of an attribute, wherever it is."""
        return [value or "" for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with several orders and a fault."""
    folder = tmp_path_factory.mktemp("results")
    same: dict[str, Any] = {"ram": "32MiB", "bursts": 1, "hold": 0.2, "rest": 0.6, "mix": "9=1"}
    ways: list[dict[str, Any]] = [{"design": "off"}, *({"design": "scan", "order": order} for order in (0, 5, 9))]
    cells = []
    for fault in ([], ["stop@0.15:0.3"]):
        for way in ways:
            cells += repeats_of(make_config({**same, **way, "fault": fault}), "simulated", 2)
    with Store.create(folder) as store:
        store.plan(cells, [])
        for cell in cells:
            store.add(run_job(Job(cell, read_costs(None), "built in")))
    return folder


@pytest.fixture(scope="module")
def html(results: Path) -> str:
    """Their report."""
    return write_report(results).read_text()


def test_a_condition_is_drawn_as_one_picture(results: Path) -> None:
    """`tools/draw_compare` puts the report's panels, a picture each, into a whole one."""
    picture = results / "one.svg"
    subprocess.run([sys.executable, "tools/draw_compare", results, picture], check=True)
    panels = ET.parse(picture).getroot().findall(".//{*}svg")
    assert len(panels) == 2  # no reporting, and Linux's order; other orders are no design of their own
    assert all(panel.get("width") and panel.get("viewBox") for panel in panels)


def test_it_is_whole_and_alone(html: str) -> None:
    """Every element is closed, no identifier is there twice, every link leads somewhere on the page, none elsewhere."""
    reader = Reader(html)
    assert reader.open == []
    twice = [name for name, count in Counter(reader.values("id")).items() if count > 1]
    assert not twice
    links = [*reader.values("href"), *(f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", html))]
    assert links
    assert {link[1:] for link in links} <= set(reader.values("id"))
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"<script|@import|https?:|\bsrc=", html)


def test_every_picture_says_what_it_shows(html: str) -> None:
    """By a title that the picture is labelled by."""
    pictures = re.findall(r"<svg[^>]*>.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) == 2 * (4 + 1 + 4)  # nothing was refaulted, so that trade-off is no picture
    for picture in pictures:
        found = re.match(r'<svg [^>]*aria-labelledby="([^"]+)"[^>]*><title id="\1">([^<]{20,})</title>', picture)
        assert found, picture[:200]


def test_conditions_are_told_in_words(html: str) -> None:
    """And with the option that makes them."""
    assert "burst, the host stands still for 0.3 s, 0.15 s into the work" in html
    assert "<code>--fault stop@0.15:0.3</code>" in html


@pytest.mark.parametrize(
    ("faults", "words", "brief"),
    [
        ((), "no fault", "no fault"),
        (("slow@0:60:50",), "the host is 50 times slower", "the host is 50 times slower"),
        (
            ("stop@1:2", "off@0:60"),
            "reporting is switched off and the host stands still for 2 s, 1 s into the work",
            "reporting is switched off and the host stands still",
        ),
    ],
)
def test_faults_in_words(faults: tuple[str, ...], words: str, brief: str) -> None:
    """With their times, unless they last for the whole run or it is to be brief."""
    assert fault_words(faults) == words
    assert fault_words(faults, brief=True) == brief


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9.0, "9.00"),
        (0.04, "0.040"),
        (0.00001234, "0.000012"),
        (12.34, "12.3"),
        (123.4, "123"),
        (-0.5, "-0.50"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    """Two or three, and never an exponent."""
    assert number(value) == text


def test_curves_by_order_are_of_what_differs_by_the_order_alone() -> None:
    """A fourth order of another design makes no curve of its own, and two orders make none."""
    figures = {"mean_resident_bytes": 3 << 20, "mean_used_bytes": 1 << 20, "guest_cpu_s": 1.0, "host_cpu_s": 2.0}
    runs = []
    ways: list[dict[str, Any]] = [{"design": "scan"}, {"design": "cursor"}]
    ways += [{"design": "scan", "order": order} for order in (4, 0)]
    for way in ways:
        runs += made_up_repeats(way, figures, figures)
    curves = order_curves(conditions_of(runs)[0])
    assert {curve.design for curve in curves} == {"scan"}
    assert {curve.label: [(order, spread.median) for order, spread in curve.spreads] for curve in curves} == {
        "held beyond what is used, MiB": [(0, 2), (4, 2), (9, 2)],
        "CPU, guest and host, s": [(0, 3), (4, 3), (9, 3)],
        "refaulted, MiB": [(0, 0), (4, 0), (9, 0)],
        "reports": [(0, 0), (4, 0), (9, 0)],
    }
    assert not order_curves(conditions_of(runs[:-2])[0])


def test_the_page_opens_with_curves_and_trade_off(html: str) -> None:
    """Each design's curve under a stopped host comes first, then what that costs, then the claims; text is below."""
    headings = re.findall(r'<section id="([^"]+)"><h2>([^<]*)</h2>', html)
    assert [name for name, _ in headings[:3]] == ["curves", "tradeoff", "claims"]
    assert headings[0][1] == "burst, the host stands still for 0.3 s, 0.15 s into the work"
    opening = html.partition('<section id="curves">')[2].partition("</section>")[0]
    assert re.findall(r'class="swatch"[^>]*design-[^>]*></span>([^<]*)', opening) == ["off", "scan"]
    assert [name for name, _ in headings].index("findings") > 3
    assert html.count("off: guest use and host residency over time") == 2, "each curve is there once"
    told = re.findall("[^<>]*not tested[^<>]*", html, flags=re.IGNORECASE)
    assert len(told) == 3, f"how many claims, and a line for either reason: {told}"


def made_up_findings() -> list[Finding]:
    """One that was tested, and two that were not for the same reason."""
    bars = Bars("memory left", "share", (
        Bar("one", "scan", Spread(0.5, 0.4, 0.6, 3), Bound("at most 70 %", 0.7, is_most=True, is_met=True)),
        Bar("other", "off", Spread(1.0, 1.0, 1.0, 3)),
    ))  # fmt: skip
    return [
        Finding(claim_id="S1", who="A", claim="1 < 2", verdict="held", sentence="It did.", bars=(bars,)),
        Finding(claim_id="S2", who="B", claim="b", verdict="not tested", sentence="No runs."),
        Finding(claim_id="S3", who="C", claim="c", verdict="not tested", sentence="No runs."),
    ]


def test_a_claim_has_its_verdict_and_its_figures_as_a_picture() -> None:
    """Bars are as long as the figures are large, a mark is where the bound is, and all of it is said in words."""
    body = claims_body(made_up_findings())
    assert Reader(body).open == []
    assert "1 held" in body
    assert "✓ Held." in body
    assert "1 &lt; 2" in body
    one, other = (float(width) for width in re.findall(r'class="length[^"]*" width="([\d.]+)"', body))
    spread_from, spread_to = map(float, re.findall(r'class="spread" d="M([\d.]+) [\d.]+H([\d.]+)"', body)[0])
    (bound,) = (float(place) for place in re.findall(r'class="bound" d="M([\d.]+)', body))
    assert [one / other, spread_from / other, spread_to / other, bound / other] == pytest.approx(
        [0.5, 0.4, 0.6, 0.7], abs=0.01
    )
    assert "memory left: one 50 % (from 40 % to 60 %), asked to be at most 70 %, which it is; other 100 %" in body


def test_what_was_not_tested_is_said_once() -> None:
    """One line for all claims that want for the same, and no picture for any of them."""
    claims, words = claims_body(made_up_findings()), findings_body(made_up_findings())
    assert re.findall("not tested", claims + words, flags=re.IGNORECASE) == ["not tested", "Not tested"]
    assert "2 not tested" in claims
    assert "Not tested: S2, S3. No runs." in words
    assert "It did." in words
    assert Reader(words).open == []


def test_a_figure_without_a_length_is_drawn() -> None:
    """Where all is 0, and where something is less, there is still a picture with its words."""
    bars = Bars("times", "count", (
        Bar("none", "scan", Spread(0, 0, 0, 3), Bound("at most 0", 0, is_most=True, is_met=True)),
        Bar("less", "scan", Spread(-2, -3, 0, 3)),
    ))  # fmt: skip
    (drawn,) = draw_bars([bars], "here")
    assert re.findall(r'class="length[^"]*" width="([^"]*)"', drawn) == ["0.0", "0.0"]
    assert ">-2<" in re.sub(r"\s", "", drawn)


def test_what_failed_is_said_once_a_kind() -> None:
    """Runs that failed alike but for a figure are one kind, with their number; so are combinations left out."""
    failed = [
        msgspec.structs.replace(made_up_repeats({"design": design}, {})[0], failed=True, outcome=outcome)
        for design, outcome in (("scan", "lost after 1 s"), ("sync", "lost after 27 s"), ("scan", "it ran away"))
    ]
    body = troubles_body(failed, [LeftOut("a", "too large"), LeftOut("b", "too large")])
    assert "<strong>2 runs failed</strong>, scan on burst, sync on burst: lost after 1 s" in body
    assert "<strong>1 run failed</strong>, scan on burst: it ran away" in body
    assert body.count("lost after") == 1
    assert body.count("too large") == 1
    assert body.count("pagetide run") == 3
    assert Reader(body).open == []


def test_set_ups_that_were_not_run_are_named_together() -> None:
    """Advice that there is none of is one sentence for all that want for the same."""
    body = advice_body([Advice(setup=setup, choice=None, why="That was not run.") for setup in ("one", "two")])
    assert body.count("That was not run.") == 1
    assert "one; for two" in body


def test_words_are_text_whatever_they_contain() -> None:
    """In every part of the page that has words of others, in elements and in attributes."""
    bad = """<script>"'&"""
    advice = Advice(setup=bad, choice=bad, why=bad, costs=bad, command=bad, linux=bad)
    bars = Bars(bad, "count", (Bar(bad, "scan", Spread(1, 1, 1, 1), Bound(bad, 1, is_most=True, is_met=None)),))
    finding = Finding(claim_id=bad, who=bad, claim=bad, verdict="held", sentence=bad, doubt=bad, bars=(bars,))
    bodies = [
        advice_body([advice]),
        claims_body([finding]),
        findings_body([finding]),
        facts([(bad, bad)]),
        troubles_body([], [LeftOut(bad, bad)]),
    ]
    whole = page(bad, [Section("a", bad, one, [("b", bad), ("c", bad)]) for one in bodies], bad)
    assert "<script" not in whole
    reader = Reader(whole)
    assert reader.open == []
    assert set(reader.values("id")) == {"a", f"claim-{bad}", f"finding-{bad}", f"bars-{bad}-0-title"}


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    """It is not left out silently."""
    with pytest.raises(UndefinedError, match="measures"):
        filled("measures.html")


def test_the_report_takes_the_place_of_the_last_one_whole(tmp_path: Path) -> None:
    """It can be made again, and leaves no other file behind."""
    with Store.create(tmp_path) as store:
        store.plan([], [])
    before = set(tmp_path.iterdir())
    first = write_report(tmp_path)
    text = first.read_text()
    assert write_report(tmp_path) == first
    assert first.read_text() == text
    assert set(tmp_path.iterdir()) == before | {first}
