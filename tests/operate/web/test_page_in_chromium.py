"""The page of a running daemon in a real browser: its figures are the daemon's, and it asks nobody else."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pagetide.operate.host.control import ask
from pagetide.operate.web.answers import WATCHERS_MAX
from pagetide.operate.web.guard import OWN_HEADER
from tests.commands.chromium import Page
from tests.commands.fake_machine import result_of
from tests.host.daemon.process import Daemon
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.operate.metrics.test_scrapes import free_port

pytestmark = [pytest.mark.xdist_group("chromium"), pytest.mark.slow]

BLOCK_PAGES = 512
OURS = {OWN_HEADER: "test"}


class Shown:
    """A daemon with a guest of three blocks, of which the second was given back, and its page."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/"
        self.daemon = Daemon(folder, "--web", self.url.removeprefix("http://").strip("/"), "--web-control")
        assert self.daemon.process.stderr is not None
        while "the page at" not in (line := self.daemon.process.stderr.readline()):
            assert line, "it ended"
        found = re.search(r"#token=([\w-]+)", line)
        assert found is not None
        self.token = found[1]
        self.guest: ServedGuest = self.daemon.guest("one", pages=3 * BLOCK_PAGES)
        self.guest.report([(BLOCK_PAGES, BLOCK_PAGES)])

    def get(self, place: str, **headers: str) -> bytes:
        """What is answered there."""
        request = urllib.request.Request(self.url + place, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read()
            return data

    def listed(self) -> dict[str, Any]:
        """What the daemon says of the guest."""
        (guest,) = ask(self.daemon.control, {"command": "list"})["guests"]
        assert isinstance(guest, dict)
        return guest


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One for all tests."""
    shown = Shown(tmp_path_factory.mktemp("daemon"))
    yield shown
    shown.guest.close()
    shown.daemon.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One for all tests."""
    with Page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(shown: Shown, browser: Page) -> Page:
    """The page, with the guest in its table."""
    browser.troubles.clear()
    browser.visit(shown.url, width=1200)
    browser.wait_for("document.querySelector('tr[data-guest=one]')")
    return browser


def figure(page: Page, name: str) -> Any:
    """A figure of the guest's, as the page has it."""
    text = page.evaluate(f"document.querySelector('tr[data-guest=one] [data-figure={name}]').dataset.value")
    return json.loads(text)


def test_its_figures_are_the_daemons(shown: Shown, page: Page) -> None:
    """Those of `ctl list --json`, and the map is that of the guest's blocks; nothing is asked of anybody else."""
    listed = shown.listed()
    for name in ("ram_bytes", "held_bytes", "target_bytes", "balloon_bytes"):
        assert figure(page, name) == listed[name]
    assert figure(page, "returned_bytes") == listed["ledger"]["returned_bytes"] == BLOCK_PAGES * 4096
    page.evaluate("document.querySelector('tr[data-guest=one] button').click()")
    page.wait_for("document.querySelectorAll('#map-legend li').length == 2")
    legend = (
        "[...document.querySelectorAll('#map-legend li')].map(item => [item.dataset.state, Number(item.dataset.bytes)])"
    )
    assert page.evaluate(legend) == [["h", 2 * BLOCK_PAGES * 4096], ["r", BLOCK_PAGES * 4096]]
    page.wait_for("document.querySelectorAll('.uplot').length == 2")
    page.wait_for("document.getElementById('events').textContent.includes('attached')")
    assert page.troubles == []


def test_it_is_worked_with_by_keys_and_on_a_phone(shown: Shown, page: Page) -> None:
    """Sorted, opened, its map gone through and left by keys; nothing is wider than the screen, no control offered."""
    browser = page
    browser.visit(shown.url, width=390, dark=True)
    browser.wait_for("document.querySelector('tr[data-guest=one]')")
    browser.evaluate("document.querySelector('#guests th button').focus()")
    press(browser, "Enter", "\r")
    assert browser.evaluate("document.querySelector('#guests th').getAttribute('aria-sort')") == "ascending"
    assert browser.evaluate("document.querySelector('#guests th').textContent") == "guest ▴"
    state = "document.querySelector('tr[data-guest=one] [data-figure=state]').getBoundingClientRect().right"
    assert browser.evaluate(state) <= 390, "what is wrong with a guest is seen without scrolling"
    browser.evaluate("document.querySelector('tr[data-guest=one] button').focus()")
    press(browser, "Enter", "\r")
    browser.wait_for("document.querySelectorAll('#map-legend li').length == 2")
    browser.evaluate("document.getElementById('map').focus()")
    for key in ("ArrowRight", "ArrowRight"):
        press(browser, key)
    assert browser.evaluate("document.getElementById('map-block').textContent") == "0x100200000: given back"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.evaluate("document.getElementById('control').checkVisibility()") is False
    press(browser, "Escape")
    assert browser.evaluate("document.activeElement.textContent") == "one"
    assert browser.evaluate("document.getElementById('guest').hidden") is True
    browser.evaluate("document.querySelector('tr[data-guest=one] button').click()")
    browser.wait_for("document.getElementById('map-block').textContent.startsWith('Point at a block')")
    assert browser.troubles == []


def press(page: Page, key: str, text: str = "") -> None:
    """Press a key, and let it go."""
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)


def test_with_the_token_a_guest_is_told_to_make_do_with_less(shown: Shown, page: Page) -> None:
    """And without it nobody tells it anything, from wherever."""
    page.visit("about:blank", width=1200)
    page.visit(f"{shown.url}#token={shown.token}", width=1200)
    page.wait_for("document.querySelector('tr[data-guest=one]')")
    assert page.evaluate("location.href") == shown.url
    page.evaluate("document.querySelector('tr[data-guest=one] button').click()")
    page.evaluate("document.getElementById('target').value = 5")
    page.evaluate("document.querySelector('#control [type=submit]').click()")
    page.wait_for("document.getElementById('control-answer').textContent")
    row = "tr[data-guest=one]"
    page.wait_for(f"document.querySelector('{row} [data-figure=target_bytes]').dataset.value == 5 * 2 ** 20")
    assert shown.listed()["target_bytes"] == 5 << 20
    assert page.troubles == []
    body = json.dumps({"command": "pause", "guest": "one"}).encode()
    for token in ("", "another"):
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Origin": shown.url.strip("/"),
        }
        request = urllib.request.Request(f"{shown.url}api/change", body, headers)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=TIMEOUT_S)
    assert shown.listed()["paused"] is False


def test_a_late_answer_is_not_shown_beside_another_guest(page: Page) -> None:
    """What was asked of the guest that was open before has no place any more."""
    page.evaluate(
        "window.told = fetch; window.late = []; window.fetch = (path, options) => String(path).includes('why')"
        " ? new Promise((answer) => late.push(answer)) : told(path, options)"
    )
    for selector in ("tr[data-guest=one] button", "#ask-why", "#close", "tr[data-guest=one] button"):
        page.evaluate(f"document.querySelector('{selector}').click()")
    page.evaluate("late[0](new Response('of another guest'))")
    page.evaluate("document.querySelector('#ask-why').click()")
    page.evaluate("late[1](new Response('of this guest'))")
    page.wait_for("document.getElementById('why').textContent != 'looking'")
    assert page.evaluate("document.getElementById('why').textContent") == "of this guest"
    page.evaluate("document.querySelector('#close').click()")
    assert page.evaluate("document.getElementById('why').textContent") == ""


def test_the_chosen_time_of_a_map_stays_chosen_while_others_come_and_go(page: Page) -> None:
    """Also while the slider has the focus: its place is the time's, not the other way round."""
    page.evaluate(
        "window.told = fetch; window.times = [1, 2, 3]; window.asked = []; window.fetch = (path, options) => {"
        " if (!path.includes('/map')) return told(path, options);"
        " const time = Number(new URLSearchParams(path.split('?')[1]).get('t_s') ?? times.at(-1)); asked.push(time);"
        " return Promise.resolve(Response.json({ t_s: time, regions: [[0, 2097152, 0]], states: [['h', 1]], times }));"
        " }"
    )
    page.evaluate("document.querySelector('tr[data-guest=one] button').click()")
    page.wait_for("document.getElementById('map-slider').max == 2")
    page.evaluate(
        "document.getElementById('map-slider').focus(); document.getElementById('map-slider').value = 1;"
        " document.getElementById('map-slider').dispatchEvent(new Event('input'))"
    )
    page.evaluate("window.times = [2, 3, 4]; window.asked = []")
    page.wait_for("asked.length")
    page.wait_for("document.getElementById('map-slider').value == 0")
    assert page.evaluate("asked.every((time) => time === 2)") is True


def _watch(shown: Shown) -> Any:
    """One more who watches, once there is a place: the browser's own may not be free yet."""
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return urllib.request.urlopen(f"{shown.url}api/looks", timeout=TIMEOUT_S)
        except urllib.error.HTTPError:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def test_a_browser_that_was_refused_asks_again(shown: Shown, browser: Page) -> None:
    """A place among those who watch is taken as soon as there is one."""
    browser.visit("about:blank", width=1200)
    with contextlib.ExitStack() as watching:
        for _ in range(WATCHERS_MAX):
            watching.enter_context(_watch(shown)).readline()
        browser.visit(shown.url, width=1200)
        browser.wait_for("document.getElementById('connection').textContent.includes('trying again')")
    browser.wait_for("document.querySelector('tr[data-guest=one]')")


def test_other_sites_and_other_places_get_nothing(shown: Shown) -> None:
    """A name that leads here, a page of another site, a file that is not the page's, a guest that is not there."""
    for headers in ({"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for place in ("", "api/looks", "api/curves?guest=one", "api/map?guest=one", "api/why?guest=one"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                shown.get(place, **headers)
    for place, status in (
        ("static/../answers.py", "404"), ("api/why?guest=/tmp", "404"), ("api/why?guest=1", "404"),
        ("api/curves?guest=one&span_s=x", "400"), ("api/map?guest=one&t_s=x", "400"), ("api/change", "405"),
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError, match=status):
            shown.get(place, **OURS)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        shown.get("api/why?guest=one")
    assert b"pagetide" in shown.get("")
    # The test plays its VM; the daemon has half a second to answer.
    end_s = time.monotonic() + TIMEOUT_S
    while b"may be looked at" not in shown.get("api/why?guest=one", **OURS):
        assert time.monotonic() < end_s


def test_a_saved_run_is_shown_on_the_same_page(browser: Page, tmp_path: Path) -> None:
    """Its last figures and its curves, and nothing that there is of guests only; Ctrl-C ends it."""
    result = result_of()
    path = tmp_path / "run.json"
    path.write_bytes(msgspec.json.encode(result))
    url = f"http://127.0.0.1:{free_port()}/"
    words = ["show", str(path), "--web", url.removeprefix("http://").strip("/")]
    browser.visit("about:blank", width=1200)  # what was shown before asks no more
    browser.troubles.clear()
    command = [sys.executable, "-m", "pagetide.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while (line := process.stderr.readline()) != f"the page is at {url}\n":
            assert line, "it ended"  # until then it may say that it is loading
        browser.visit(url, width=1200)
        browser.wait_for("document.querySelector('.uplot')")
        held = browser.evaluate("document.querySelector('[data-figure=held_bytes]').dataset.value")
        assert int(held) == result.samples.host_resident_bytes[-1]
        assert browser.evaluate("document.getElementById('map').checkVisibility()") is False
        assert browser.evaluate("document.getElementById('ask-why').checkVisibility()") is False
        assert browser.troubles == []
        browser.visit("about:blank", width=1200)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.communicate()
