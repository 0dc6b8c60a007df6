"""The conformance vectors, on our device and on stock QEMU; and that they can fail."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.host.device import BalloonDevice
from pagetide.host.server import Server
from pagetide.host.turn import NOTHING
from pagetide.lab.conformance import RAM_BYTES, VECTORS, Result, run_vectors
from pagetide.linux import eventfd, eventfd_write
from pagetide.machine.devices import DeviceUnderTest, OwnDevice, StockQemu

NAMES = [vector.name for vector in VECTORS]


@pytest.fixture(scope="module", params=["pagetide", "qemu"])
def results(request: pytest.FixtureRequest) -> Iterator[dict[str, Result]]:
    """Every vector's result on one device."""
    tested: DeviceUnderTest = OwnDevice(RAM_BYTES) if request.param == "pagetide" else StockQemu(RAM_BYTES)
    with tested:
        yield {result.name: result for result in run_vectors(tested, is_qemu=request.param == "qemu")}


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_passes(results: dict[str, Result], name: str) -> None:
    """What was reported is gone, what was not is intact, and what is skipped is accounted for."""
    result = results[name]
    assert result.passed, f"expected {result.expected}, found {result.found}: {result.note}"


def test_names_are_unique() -> None:
    """A result can be found by its vector's name."""
    assert len(set(NAMES)) == len(NAMES)


def test_a_device_that_discards_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that leaves everything in the ring fails every vector."""
    monkeypatch.setattr(BalloonDevice, "process", lambda *_: NOTHING)
    monkeypatch.setattr("pagetide.lab.conformance._PATIENCE_S", 0.02)
    monkeypatch.setattr("pagetide.lab.conformance._BROKEN_AFTER_S", 0.01)
    with OwnDevice(RAM_BYTES) as device:
        failed = [result.name for result in run_vectors(device) if not result.passed]
    assert failed == NAMES


def test_the_command_prints_json_and_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    """`pagetide conformance --json` lists every vector, and its status is 0 when all passed."""
    assert cli.main(["conformance", "--json"]) == 0
    assert [result["name"] for result in json.loads(capsys.readouterr().out)] == NAMES


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
    assert "FAILED" not in capsys.readouterr().out


def test_a_socket_that_nobody_serves_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A device that is not there ends with its reason and status 1."""
    assert cli.main(["conformance", "--device", "/nowhere.sock"]) == 1
    assert "No such file" in capsys.readouterr().err
