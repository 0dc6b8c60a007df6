"""A run on the page, while it goes on and when it was saved."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from pagetide.commands.run_page import RunPage, listen_for_page
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.observer import Nobody
from pagetide.machine.result import Sample
from pagetide.operate.web.history import NAMES, POINTS_MAX
from pagetide.operate.web.run_shown import RunBegun, RunShown, Samples, Stage
from tests.operate.metrics.test_scrapes import free_port

MIB = 1 << 20


def sample(t_s: float, held: int, used: int = MIB) -> Sample:
    """At this time so much is held."""
    return Sample(t_s, used, 0, None, held)


def test_a_run_is_one_vm_with_its_stages_as_events() -> None:
    """Its curves are the samples', by the time of day; what a run does not have is not known."""
    shown = RunShown(lambda: None)
    shown.hear(RunBegun("scan on burst", 64 * MIB, 1000.0))
    shown.hear(Stage("info", "burst 1 of 1: eating"))
    shown.hear(Samples([sample(0.5, 3 * MIB), sample(1.0, 5 * MIB, 2 * MIB)]))
    shown.hear(Stage("warning", "late"))
    told = json.loads(shown.message)
    (vm,) = told["vms"]
    assert (told["shows"], vm["name"], vm["held_bytes"], vm["ram_bytes"]) == ("run", "scan on burst", 5 * MIB, 64 * MIB)
    curves = shown.curves("scan on burst", 60.0)
    assert (curves["t_s"], curves["held_bytes"]) == ([1000.5, 1001.0], [3 * MIB, 5 * MIB])
    assert curves["used_bytes"] == [MIB, 2 * MIB]
    assert [curves[name] for name in NAMES if name not in ("held_bytes", "used_bytes")] == [[None, None]] * 5
    events = [(event.t_s, event.level) for event in shown.events("scan on burst")]
    assert events == [(1000.0, "info"), (1001.0, "warning")]
    assert shown.map_at("scan on burst", 0.0) is None
    assert shown.asked_as("scan on burst") is None


def test_a_long_run_is_told_in_fewer_points_with_all_its_heights() -> None:
    """A short rise is not lost."""
    shown = RunShown(lambda: None)
    shown.hear(RunBegun("run", 64 * MIB, 0.0))
    shown.hear(Samples([sample(index / 50, 60 * MIB if index == 7001 else MIB) for index in range(10_000)]))
    curves = shown.curves("run", 1e6)
    assert len(curves["t_s"]) <= POINTS_MAX
    assert max(curves["held_bytes"]) == 60 * MIB
    assert curves["t_s"] == sorted(curves["t_s"])
    assert max(shown.curves("run", 10.0)["held_bytes"]) == MIB


@pytest.mark.slow
def test_a_run_tells_its_page_while_it_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    """Every sample arrives in the page's process, and whoever watched before is told as well; it ends with the run."""
    address = f"127.0.0.1:{free_port()}"
    heard: list[str] = []

    class Watcher(Nobody):
        def stage(self, text: str) -> None:
            heard.append(text)

    with RunPage(listen_for_page(address), RunConfig(ram_bytes=64 * MIB), Watcher()) as page:
        for index in range(100):
            page.sample(sample(index / 50, index * MIB))
        page.stage("at rest")
        curves = wait_for(address, lambda told: len(told["t_s"]) == 100 and told["events"])
    assert curves["held_bytes"] == [index * MIB for index in range(100)]
    assert [event["text"] for event in curves["events"]] == ["at rest"]
    assert heard == ["at rest"]
    assert capfd.readouterr().err == f"the page is at http://{address}/\n"
    with pytest.raises(OSError, match="refused"):
        curves_at(address)


def curves_at(address: str) -> dict[str, Any]:
    """What the page's process has of the run."""
    with urllib.request.urlopen(f"http://{address}/api/curves?guest=scan+on+burst&span_s=60", timeout=20) as answer:
        told: dict[str, Any] = json.loads(answer.read())
        return told


def wait_for(address: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The curves once they are as wanted: each look that is told is waited for."""
    with urllib.request.urlopen(f"http://{address}/api/looks", timeout=20) as looks:
        while looks.readline():
            told = curves_at(address)
            if holds(told):
                return told
    raise AssertionError("the page's process has ended")


def test_a_run_is_shown_on_this_machine_only() -> None:
    """And at an address that can be had."""
    for text, sentence in (("0.0.0.0:80", "on this machine only"), ("80", "not '80'")):
        with pytest.raises(ConfigError, match=sentence):
            listen_for_page(text)
    taken = listen_for_page("127.0.0.1:0")
    with pytest.raises(ConfigError, match="in use"):
        listen_for_page(f"127.0.0.1:{taken.getsockname()[1]}")
    taken.close()
