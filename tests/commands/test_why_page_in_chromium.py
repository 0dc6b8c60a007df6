"""The page of `pagetide why` in a real browser: it reads on a phone, whatever words are in it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pagetide.operate.answer import answer
from pagetide.operate.page import page as page_of
from pagetide.units import GIB, MIB
from tests.commands.chromium import Page
from tests.operate.test_balance import make_evidence, make_guest

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser."""
    with Page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a VM most of whose memory is in one class, with a long command as its remedy and a path without a space."""
    evidence = make_evidence(GIB - 200 * MIB, make_guest({9: 250}, balloons=()))
    found = answer(msgspec.structs.replace(evidence, gaps=("/run/user/1000" * 40 + " could not be read",)))
    path = tmp_path_factory.mktemp("page") / "vm.html"
    path.write_text(page_of(found))
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_all_of_it_is_on_the_screen(path: Path, page: Page, width: int, dark: bool) -> None:
    """Neither the page nor a command in it is to be scrolled sideways, and every class has its bar beside its share."""
    page.open(path, width=width, dark=dark)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    commands = page.evaluate("[...document.querySelectorAll('pre')].map(one => [one.scrollWidth, one.clientWidth])")
    assert commands
    assert all(needed <= there for needed, there in commands), commands
    rows = page.evaluate(
        """[...document.querySelectorAll('tbody tr')].map(row => [
            row.querySelector('.bar').getBoundingClientRect().width, parseFloat(row.cells[2].innerText)])"""
    )
    assert len(rows) >= 3
    widest, largest = max(rows)
    assert widest * largest > 0
    assert all(bar == pytest.approx(widest * share / largest, abs=0.5) for bar, share in rows), rows
    assert page.troubles == []
