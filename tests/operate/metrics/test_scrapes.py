"""`pagetide serve --metrics` as a process, scraped by hand and by a real Prometheus; rules and dashboard for it."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.cli import commands  # noqa: F401 - adds them
from pagetide.cli.app import app
from pagetide.operate import endpoint_process
from pagetide.operate.endpoint_process import Address, listen, read_address
from pagetide.operate.metrics.series import FAMILIES
from tests.host.daemon.process import Daemon
from tests.host.guest.served_guest import TIMEOUT_S, wait_readable
from tests.host.guest_ring import PAGE, RING_PAGES
from tests.operate.metrics.prometheus import Prometheus, program

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus/pagetide-rules.yml"


_ports = itertools.count(20_000 + os.getpid() % 1000 * 10)


def free_port() -> int:
    """A port that nobody has, below those that the kernel gives to who asks for none, and another each time."""
    while True:
        with socket.socket() as sock, contextlib.suppress(OSError):
            port = next(_ports)
            sock.bind(("127.0.0.1", port))
            return port


class Watched:
    """A daemon that tells metrics."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until they are told."""
        self.port = free_port()
        self.daemon = Daemon(folder, "--metrics", f"127.0.0.1:{self.port}")
        self.read_log("metrics at")

    def read_log(self, words: str) -> str:
        """The next line of the daemon's log that has these words."""
        assert self.daemon.process.stderr is not None
        while words not in (line := self.daemon.process.stderr.readline()):
            assert line, f"it ended, and never said {words!r}"
            assert "is started anew" not in line, line
        return line

    def scrape(self, accept: str = "") -> str:
        """The text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            text: str = answer.read().decode()
            return text

    def teller(self) -> int:
        """The process that tells them: the daemon's child."""
        children = Path(f"/proc/{self.daemon.process.pid}/task/{self.daemon.process.pid}/children").read_text()
        (child,) = map(int, children.split())
        return child


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A daemon with metrics."""
    watched = Watched(tmp_path)
    yield watched
    watched.daemon.close()


def test_what_is_scraped_is_clean(watched: Watched) -> None:
    """`promtool check metrics` has nothing to say of names, units and help, with a guest and without."""
    with watched.daemon.guest("one") as guest:
        guest.report([(RING_PAGES, 1)])
        text = watched.scrape()
    assert f'pagetide_guest_returned_bytes_total{{guest="one",by="report"}} {PAGE}\n' in text
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_there_are_only_metrics_and_a_way_to_them(watched: Watched) -> None:
    """Other places are not found, and OpenMetrics is written for who accepts it."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{watched.port}/secret")
    assert watched.scrape("application/openmetrics-text; version=1.0.0").endswith("# EOF\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{watched.port}/") as answer:
        assert b'href="/metrics"' in answer.read()


def test_the_process_that_tells_ends_with_the_daemon(watched: Watched) -> None:
    """Also when the daemon is killed, and has told it nothing."""
    teller = os.pidfd_open(watched.teller())
    watched.daemon.stop(signal.SIGKILL)
    wait_readable(teller)
    os.close(teller)


def test_a_teller_that_ends_too_soon_is_not_started_again(watched: Watched) -> None:
    """The log says so, and guests are served as before."""
    os.kill(watched.teller(), signal.SIGKILL)
    watched.read_log("no more metrics: the process that tells it ended with -9")
    with watched.daemon.guest("one") as guest:
        guest.report([(RING_PAGES, 1)])
    assert watched.daemon.stop()[0] == 0


def test_a_teller_that_ended_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it had run for a while; it answers at the same socket."""
    monkeypatch.setattr(endpoint_process, "STEADY_S", 0.0)
    loop = Loop()
    listener = listen(Address("127.0.0.1", 0), beside_another=False)
    teller = endpoint_process.EndpointProcess(endpoint_process.METRICS, listener, tmp_path / "nobody", loop)
    before = teller.pid
    os.kill(before, signal.SIGKILL)
    ((fd, then),) = loop.watched.items()
    wait_readable(fd)
    then()
    assert teller.pid != before
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}/metrics", timeout=TIMEOUT_S)
    teller.close()
    assert loop.watched == {}


class Loop:
    """What the daemon's loop is asked to watch."""

    def __init__(self) -> None:
        self.watched: dict[int, endpoint_process.Then] = {}

    def wake_by(self, fd: int, then: endpoint_process.Then) -> None:
        """Note it."""
        self.watched[fd] = then

    def no_wake_by(self, fd: int) -> None:
        """Forget it."""
        del self.watched[fd]


@pytest.mark.parametrize("text", ["9464", "localhost:9464", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "[::1]"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """With a sentence that has one."""
    with pytest.raises(ValueError, match=re.escape("such as 127.0.0.1:9464, not")):
        read_address(text)


def test_others_reach_it_only_if_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address that is not loopback needs --metrics-any, and that an address."""
    serve = ["serve", "--socket", str(tmp_path / "a.sock"), "--control", str(tmp_path / "control")]
    assert cli.main([*serve, "--metrics", "0.0.0.0:9464"]) == 2
    assert "give --metrics-any if that is meant" in capsys.readouterr().err
    assert cli.main([*serve, "--metrics-any"]) == 2
    assert str(read_address("[::1]:80")) == "[::1]:80"
    assert read_address("[::1]:80").is_loopback


def test_a_successor_listens_beside_its_predecessor_and_nobody_else_does() -> None:
    """Who did not ask for it finds the address in use."""
    first = listen(Address("127.0.0.1", 0), beside_another=False)
    with contextlib.closing(first):
        taken = Address("127.0.0.1", first.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            listen(taken, beside_another=False)
        listen(taken, beside_another=True).close()


def test_a_real_prometheus_has_it_all(watched: Watched, tmp_path: Path) -> None:
    """It scrapes and reads every series; the dashboard's questions and the rules are its language; counters go on."""
    prometheus = Prometheus(tmp_path, f"127.0.0.1:{watched.port}", free_port())
    reports = 'pagetide_guest_reports_total{guest="one"}'
    try:
        with watched.daemon.guest("one") as guest:
            guest.report([(RING_PAGES, 1)])
            prometheus.wait_for(reports, 1)
            kinds = {name: each[0] for name, each in prometheus.ask("metadata").items() if "guest" in name}
            told = {family.name for family in FAMILIES} & {name.removesuffix("_total") for name in kinds}
            assert {name for name in told if "own" not in name} == {
                family.name for family in FAMILIES if "own" not in family.name
            }
        prometheus.wait_for('pagetide_guest_attached{guest="one"}', 0)
        with watched.daemon.guest("one") as guest:
            guest.report([(RING_PAGES, 1)])
            prometheus.wait_for(reports, 2)
        assert prometheus.value(f"resets({reports}[1m])") == 0
        prometheus.wait_for('up{job="pagetide"}', 1)
        for expression in dashboard():
            prometheus.ask("query", query=expression)
        groups = prometheus.ask("rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    finally:
        prometheus.close()


def dashboard() -> list[str]:
    """The dashboard's questions."""
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) >= len(board["panels"])
    return [ask.replace("$__rate_interval", "1m").replace("$guest", ".*").replace("$job", ".*") for ask in asked]


def test_rules_and_dashboard_ask_for_what_there_is() -> None:
    """Every metric that they name is told."""
    told = {f"{family.name}{suffix}" for family in FAMILIES for suffix, _ in family.series}
    for text in (*dashboard(), RULES.read_text()):
        assert set(re.findall(r"(?<!:)\bpagetide_guest_\w+", text)) <= told


def test_what_an_alert_advises_asks_the_units_daemon() -> None:
    """The command that it names is one, and names the control socket of the unit."""
    ((words, served),) = zip(
        re.findall("`pagetide (why .*?)`", RULES.read_text()),
        re.findall("^ExecStart=.* --control (.*)$", (DEPLOY / "pagetide.service").read_text(), re.MULTILINE),
        strict=True,
    )
    _, bound, _ = app.parse_args(words.replace("{{ $labels.guest }}", "vm1"), exit_on_error=False)
    assert bound.arguments == {"vm": "vm1", "control": Path(served)}


def test_the_rules_do_as_their_test_says(tmp_path: Path) -> None:
    """`promtool test rules` passes, and fails once a threshold is another."""
    for name in ("pagetide-rules.yml", "pagetide-rules-test.yml"):
        (tmp_path / name).write_text((DEPLOY / "prometheus" / name).read_text())
    command = [program("promtool"), "test", "rules", str(tmp_path / "pagetide-rules-test.yml")]
    subprocess.run(command, check=True, capture_output=True)
    for right, wrong in (("0.25 *", "0.75 *"), ("> 0.5 *", "> 0.7 *"), ("> 0.015", "> 0.05"), ('"needs reset"', '"x"')):
        text = RULES.read_text()
        assert text.count(right) == 1
        (tmp_path / "pagetide-rules.yml").write_text(text.replace(right, wrong))
        assert subprocess.run(command, check=False, capture_output=True).returncode != 0
