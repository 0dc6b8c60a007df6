"""The conformance vectors, on our device and on stock QEMU; and that they can fail."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.host.device import BalloonDevice
from pagetide.host.discard import punch_hole
from pagetide.host.server import Server
from pagetide.host.turn import NOTHING, Turn
from pagetide.lab.conformance.bench import DATA, PAGE, RAM_BYTES, Bench
from pagetide.lab.conformance.run import VECTORS, run_vector, run_vectors
from pagetide.lab.conformance.vector import Result
from pagetide.linux import eventfd, eventfd_write
from pagetide.machine.device_under_test import DeviceUnderTest
from pagetide.machine.devices import OwnDevice, StockQemu
from pagetide.memory.region_map import REGION_FD

NAMES = [f"{vector.topic}: {vector.name}" for vector in VECTORS]

ASKED_OF_NO_QEMU = {
    "ring: a queue of 128",
    "ring: a queue of 1024",
    "hinting: a round, from its id to done",
    "configuration: a reset ends a round of hints",
    "pause: inhibited: acknowledged, and nothing is discarded",
}


@pytest.fixture(scope="module", params=["pagetide", "qemu"])
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Result]]:
    """Every vector's result on one device."""
    tested: DeviceUnderTest = OwnDevice(RAM_BYTES) if request.param == "pagetide" else StockQemu(RAM_BYTES)
    with tested:
        yield {
            f"{result.topic}: {result.name}": result for result in run_vectors(tested, is_qemu=request.param == "qemu")
        }


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_passes(results: dict[str, Result], name: str) -> None:
    """What was reported is gone, what was not is intact, and what is skipped is accounted for."""
    result = results[name]
    assert result.passed, f"expected {result.expected}, found {result.found}: {result.note}"


def test_names_are_unique() -> None:
    """A result can be found by its vector's name."""
    assert len(set(NAMES)) == len(NAMES)


def test_every_vector_is_tested_where_it_can_be(results: dict[str, Result]) -> None:
    """No vector goes untested on our device, and on QEMU only what it has no way to be asked for."""
    untested = {name for name, result in results.items() if result.found is None}
    assert untested in (set(), ASKED_OF_NO_QEMU)


def test_a_device_that_does_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that leaves everything in its rings fails every vector that needs an answer."""

    def glance(bench: Bench, condition: Callable[[], bool], *_: object) -> bool:
        time.sleep(0.005)
        return condition()

    monkeypatch.setattr(BalloonDevice, "process", lambda *_: NOTHING)
    monkeypatch.setattr(Bench, "wait_for", glance)
    with OwnDevice(RAM_BYTES) as device:
        passed = {f"{result.topic}: {result.name}" for result in run_vectors(device) if result.passed}
    silent = {"reset: a queue from before the reset is not served", "configuration", "negotiation"}
    assert {name for name in passed if name not in silent and name.split(":")[0] not in silent} == set()


def test_a_device_that_discards_too_much_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page more than was given away, and the bench says so."""
    process = BalloonDevice.process

    def greedy(device: BalloonDevice, index: int, budget: int) -> Turn:
        assert punch_hole(int(device._memory.region_map.table[0, REGION_FD]), DATA - 9 * PAGE, PAGE) == 0
        return process(device, index, budget)

    monkeypatch.setattr(BalloonDevice, "process", greedy)
    with OwnDevice(RAM_BYTES) as device:
        bench = Bench(device)
        for name in ("reporting: poisoned pages", "inflate: one page", "statistics: the first buffer is kept"):
            result = run_vector(VECTORS[NAMES.index(name)], bench)
            assert not result.passed
            assert result.note == "memory that was not given away was changed"


def test_the_command_prints_json_and_says_how_it_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pagetide conformance --json` lists every vector, and its status is 0 when all passed."""
    monkeypatch.setattr("pagetide.lab.conformance.run.VECTORS", VECTORS[:7])
    assert cli.main(["conformance", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f"{result['topic']}: {result['name']}" for result in found] == NAMES[:7]


def test_a_socket_that_somebody_serves_is_put_to_the_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every vector passes over a socket too, where guests come and go while the server runs."""
    stop_fd = eventfd()
    with Server() as server:
        server.listen(tmp_path / "host")
        thread = threading.Thread(target=server.run, args=(stop_fd,))
        thread.start()
        try:
            assert cli.main(["conformance", "--device", str(tmp_path / "host")]) == 0
        finally:
            eventfd_write(stop_fd)
            thread.join()
            os.close(stop_fd)
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert "has no way to ask for that" in " ".join(out.split())


def test_a_socket_that_nobody_serves_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A device that is not there ends with its reason and status 1."""
    assert cli.main(["conformance", "--device", "/nowhere.sock"]) == 1
    assert "No such file" in capsys.readouterr().err
