"""Conditions drawn by processes beside one another, and by this one."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from pagetide.compare.report import bodies
from pagetide.compare.report.bodies import Body, Wanted
from pagetide.compare.report.writing import REPORT, write_report
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.store import Store
from pagetide.machine.settings.file import make_config
from pagetide.workers.pools import ExecutorPool
from tests.commands.fake_machine import result_of
from tests.compare.results.test_compare_store import record_of


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of two designs on three conditions."""
    faults: tuple[list[str], ...] = ([], ["stop@0.15:0.3"], ["slow@0:1:10"])
    configs = [make_config({"design": design, "fault": fault}) for fault in faults for design in ("off", "scan")]
    with Store.create(tmp_path) as store:
        store.add(*(record_of(Cell(config, "simulated", 1), result=result_of(config)) for config in configs))
    return tmp_path


@pytest.fixture
def page(results: Path) -> str:
    """The report as one process makes it."""
    return write_report(results).read_text()


def test_the_page_is_the_same_whoever_draws(results: Path, page: str) -> None:
    """Two processes draw what one did, to the last byte."""
    (results / REPORT).unlink()
    command = [sys.executable, "-m", "tests.compare.report.drawn_by_two", str(results)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout == "2 processes\n"
    assert (results / REPORT).read_text() == page


class _BrokenExecutor(Executor):
    """Its processes were killed."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool())
        return future


class _BrokenBefore(Executor):
    """Its processes were killed before it was given anything."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        raise BrokenProcessPool


@pytest.mark.parametrize("executor", [_BrokenExecutor, _BrokenBefore])
def test_who_is_killed_while_it_draws_costs_no_report(
    results: Path, page: str, monkeypatch: pytest.MonkeyPatch, executor: Callable[[], Executor]
) -> None:
    """What it was to draw is drawn without it."""
    asked: list[int] = []

    def make(workers: int, draw: Callable[[Wanted], Body]) -> ExecutorPool[Wanted, Body]:
        asked.append(workers)
        return ExecutorPool(executor, workers, draw)

    monkeypatch.setattr(bodies, "_PANELS_MIN", 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(bodies, "ProcessPool", make)
    assert write_report(results).read_text() == page
    assert asked == [2]


def test_the_processes_end_with_the_drawing(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told to once the last condition is drawn, and where something breaks before."""
    closed: list[bool] = []

    class Pool(ExecutorPool[Wanted, Body]):
        def close(self) -> None:
            closed.append(True)

    def broken(_: int, __: int) -> None:
        raise RuntimeError

    monkeypatch.setattr(bodies, "_PANELS_MIN", 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(bodies, "ProcessPool", lambda workers, draw: Pool(_BrokenExecutor, workers, draw))
    with pytest.raises(RuntimeError) as caught:
        write_report(results, broken)
    assert closed == [True]
    write_report(results)
    assert closed == [True, True]
    del caught
