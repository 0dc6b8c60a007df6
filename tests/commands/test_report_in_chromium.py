"""The report in a real browser: its figures are the database's, and it reads on a phone, in the dark and on paper."""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pagetide.compare.grid.worker import Job, run_job
from pagetide.compare.report.writing import write_report
from pagetide.compare.results.cells import repeats_of
from pagetide.compare.results.store import DATABASE, Store
from pagetide.machine.costs import read_costs
from pagetide.machine.settings.file import make_config
from tests.commands.chromium import Page

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.slow]

DESIGNS = ("off", "scan", "notify-array", "sync")
REPEATS = 2
EXAMPLE = Path("docs/compare-report.html").resolve()
SQL = {
    "footprint_gib": "mean_resident_bytes / 1073741824.0",
    "lag_p99_s": "return_lag_s_p99",
    "unreturned_mib": "unreturned_bytes / 1048576.0",
    "stalls": "vcpu_waits_host",
    "lock_hold_max_us": "zone_lock_hold_s_max * 1e6",
    "reports": "reports",
    "kicks": "kicks",
    "repeated_mib": "repeated_bytes / 1048576.0",
    "refaulted_gib": "refaulted_bytes / 1073741824.0",
    "guest_cpu_s": "guest_cpu_s",
    "host_cpu_s": "host_cpu_s",
}
"""Measures that are checked, as the database has them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a small grid, with their report."""
    folder = tmp_path_factory.mktemp("results")
    cells = []
    for fault in ([], ["stop@0.15:0.5"]):
        for design in DESIGNS:
            settings = {"ram": "32MiB", "bursts": 1, "hold": 0.2, "rest": 1.0, "mix": "9=1", "fault": fault}
            cells += repeats_of(make_config({**settings, "design": design}), "simulated", REPEATS)
    with Store.create(folder) as store:
        store.plan(cells, [])
        for cell in cells:
            store.add(run_job(Job(cell, read_costs(None), "built in")))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser."""
    with Page(tmp_path_factory.mktemp("browser")) as page:
        yield page


def shown(page: Page) -> list[tuple[str, str, str, str]]:
    """Every figure that is seen: the condition, the configuration, the measure and the text."""
    found = page.evaluate(
        """[...document.querySelectorAll('[data-configuration] > td:not(.failed)')].map(cell => [
            cell.closest('table').caption.innerText, cell.parentNode.dataset.configuration,
            cell.closest('table').tHead.rows[1].cells[cell.cellIndex - 1].dataset.measure,
            [...cell.childNodes].filter(node => node.nodeType === Node.TEXT_NODE).map(node => node.data).join('')])"""
    )
    return [tuple(one) for one in found]


def number_of(text: str) -> float:
    """What a reader reads."""
    return float(re.sub(r"[\s\u202f]", "", text))


def test_the_figures_are_those_of_the_database(folder: Path, page: Page) -> None:
    """The medians that a reader sees are those that SQL finds, to the digits that are shown."""
    page.open(folder / "report.html", width=1280)
    seen = shown(page)
    with duckdb.connect(folder / DATABASE, read_only=True) as database:
        checked = 0
        for measure, expression in SQL.items():
            rows = database.execute(
                f"SELECT workload, faults, design, median({expression}) FROM runs GROUP BY ALL"
            ).fetchall()
            assert len(rows) == 2 * len(DESIGNS)
            for workload, faults, design, median in rows:
                texts = [
                    text
                    for title, configuration, name, text in seen
                    if (configuration, name) == (design, measure)
                    and (faults in title if faults else "no fault" in title)
                ]
                assert len(texts) == 1, (workload, faults, design, measure, texts)
                if median is None:
                    assert texts == ["–"]  # noqa: RUF001
                else:
                    assert number_of(texts[0]) == pytest.approx(median, rel=0.06, abs=1e-9), (measure, design)
                checked += 1
    assert checked == len(SQL) * 2 * len(DESIGNS)


def test_nothing_is_asked_for_and_nothing_complained_of(folder: Path, page: Page) -> None:
    """The page needs no network, and the console stays silent."""
    page.open(folder / "report.html", width=1280)
    assert page.troubles == []
    html = (folder / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!#)|@import|<script', html)


@pytest.mark.parametrize("width", [360, 400, 1280])
@pytest.mark.parametrize("is_example", [False, True], ids=["small", "example"])
def test_the_page_is_no_wider_than_the_screen(folder: Path, page: Page, width: int, is_example: bool) -> None:
    """Only on a phone do tables scroll sideways, each by itself; the pictures fit everywhere. So does the example."""
    page.open(EXAMPLE if is_example else folder / "report.html", width=width)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    if width >= 1280:
        tables = page.evaluate("[...document.querySelectorAll('.wide')].map(one => [one.scrollWidth, one.clientWidth])")
        assert len(tables) >= 2
        assert all(needed <= there for needed, there in tables), tables
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().right))"
    )
    assert widest <= width


def test_the_first_screen_is_pictures(folder: Path, page: Page) -> None:
    """Curves begin in its upper third, and those of all designs end on it; what less memory costs comes right after."""
    page.open(folder / "report.html", width=1280)
    places = page.evaluate(
        """[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect())
            .map(one => [one.top, one.bottom])"""
    )
    tops, bottoms = zip(*places[: len(DESIGNS)], strict=True)
    assert max(tops) < 300
    assert max(bottoms) < 900
    assert places[len(DESIGNS)][0] < 900


def test_every_configuration_has_a_curve_that_is_seen(folder: Path, page: Page) -> None:
    """One picture for each, inside the page, with its axes' units, and with the design's one colour throughout."""
    page.open(folder / "report.html", width=1280)
    pictures = page.evaluate("[...document.querySelectorAll('.panels svg')].map(one => one.textContent)")
    assert len(pictures) == 2 * len(DESIGNS)
    assert all("GiB" in text and re.search(r"\d s", text) for text in pictures)
    colours = page.evaluate(
        """[...document.querySelectorAll('.panels figure')].map(one => [one.querySelector('figcaption').innerText,
            [...one.querySelectorAll('svg path')].map(path => getComputedStyle(path).stroke)])"""
    )
    for design in DESIGNS:
        expected = page.evaluate(
            f"""(() => {{ const one = document.body.appendChild(document.createElement('i'));
                one.style.color = 'var(--design-{design})';
                const colour = getComputedStyle(one).color; one.remove(); return colour }})()"""
        )
        lines = [strokes for caption, strokes in colours if re.match(rf"{design}\b(?!-)", caption.strip())]
        assert len(lines) == 2
        assert all(expected in strokes for strokes in lines)


def test_dark_is_dark_and_light_is_light(folder: Path, page: Page) -> None:
    """Text keeps a contrast of 4.5 to 1 with the ground for either kind of reader (WCAG 2.2, 1.4.3)."""
    grounds = []
    for dark in (False, True):
        page.open(folder / "report.html", width=1280, dark=dark)
        style = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        ground, ink = (_luminance(colour) for colour in style)
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5
        grounds.append(ground)
        assert len(set(page.screenshot())) > 100
    assert grounds[0] > 0.8
    assert grounds[1] < 0.1


def test_it_can_be_printed(folder: Path, page: Page) -> None:
    """On paper it has pages, and no page is lost to an error."""
    page.open(folder / "report.html", width=1280)
    paper = page.pdf()
    assert paper.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) >= 2


def _luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
