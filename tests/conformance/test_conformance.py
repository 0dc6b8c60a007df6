"""The conformance vectors, on our device and on stock QEMU; and that they can fail."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.conformance.devices.catalogue import OwnDevice, StockQemu
from pagetide.conformance.devices.device_under_test import DeviceUnderTest
from pagetide.conformance.run import VECTORS, run_vector, run_vectors
from pagetide.conformance.vectors.bench import DATA, PAGE, RAM_BYTES, Bench
from pagetide.conformance.vectors.vector import Result
from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.queues.turn import NOTHING, Turn
from pagetide.host.memory.ledger import REPORTS
from pagetide.host.memory.punch import punch_hole
from pagetide.linux import eventfd, eventfd_write
from pagetide.memory.region_map import REGION_FD
from pagetide.virtio.split_ring.device_ring import DeviceRing, Element

pytestmark = pytest.mark.xdist_group("conformance")

NAMES = [f"{vector.topic}: {vector.name}" for vector in VECTORS]
FOR_ALL = [f"{vector.topic}: {vector.name}" for vector in VECTORS if not vector.ours_only]
FOR_OURS = {"reporting: wrapping around 2^64"}

ASKED_OF_NO_QEMU = {
    "negotiation: MUST_TELL_HOST, which QEMU does not offer",
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


@pytest.mark.parametrize("name", FOR_ALL)
def test_a_vector_passes(results: dict[str, Result], name: str) -> None:
    """What was reported is gone, what was not is intact, and what is skipped is accounted for."""
    result = results[name]
    assert result.passed, f"expected {result.expected}, found {result.found}: {result.note}"


def test_some_vectors_are_for_our_device_only(results: dict[str, Result], request: pytest.FixtureRequest) -> None:
    """A range that wraps around 2^64 is skipped and counted by our device, and no other is sent one."""
    assert set(NAMES) - set(FOR_ALL) == FOR_OURS
    is_ours = request.node.callspec.params["results"] == "pagetide"
    assert set(results) & FOR_OURS == (FOR_OURS if is_ours else set())
    assert all(results[name].passed for name in FOR_OURS if is_ours)


def test_names_are_unique() -> None:
    """A result can be found by its vector's name."""
    assert len(set(NAMES)) == len(NAMES)


def test_every_vector_is_tested_where_it_can_be(results: dict[str, Result]) -> None:
    """No vector goes untested on our device, and on QEMU only what it has no way to be asked for."""
    untested = {name for name, result in results.items() if result.found is None}
    drafts = {name for name in results if name.startswith("draft: ")}
    assert len(drafts) == 2
    assert untested in (set(), ASKED_OF_NO_QEMU | drafts)


def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("bench", "rings", "reporting"):
        monkeypatch.setattr(f"pagetide.conformance.vectors.{module}.PATIENCE_S", 0.3)


Process = Callable[[BalloonDevice, int, int], Turn]


def _process(monkeypatch: pytest.MonkeyPatch, process: Process) -> None:
    """Have turns be these, each of them: none is served in passing."""
    monkeypatch.setattr(BalloonDevice, "process", process)
    monkeypatch.setattr(BalloonDevice, "skip_if_served", lambda *_: None)


def test_a_device_that_does_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that leaves everything in its rings fails every vector that needs an answer."""

    def glance(bench: Bench, condition: Callable[[], bool], *_: object) -> bool:
        time.sleep(0.005)
        return condition()

    _process(monkeypatch, lambda *_: NOTHING)
    monkeypatch.setattr(Bench, "wait_for", glance)
    _impatient(monkeypatch)
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

    _process(monkeypatch, greedy)
    with OwnDevice(RAM_BYTES) as device:
        bench = Bench(device)
        for name in ("reporting: poisoned pages", "inflate: one page", "statistics: the first buffer is kept"):
            result = run_vector(VECTORS[NAMES.index(name)], bench)
            assert not result.passed
            assert result.note == "memory that was not given away was changed"


def _serving(serve: Callable[[BalloonDevice, DeviceRing, Element], bool]) -> Process:
    """A device that takes an element and does this with it; it calls the driver if the answer is true."""

    def process(device: BalloonDevice, index: int, budget: int) -> Turn:
        ring = device.queues._started[index].queue.ring
        element = ring.pop(device._memory.region_map.table)
        return NOTHING if element is None else Turn(call=serve(device, ring, element), more=False)

    return process


def _punch(device: BalloonDevice, element: Element) -> None:
    """Discard what a driver gives."""
    for gpa, length_bytes, _ in element.buffers:
        punch_hole(int(device._memory.region_map.table[0, REGION_FD]), gpa, length_bytes)


def _hasty(_: Process) -> Process:
    """Gives back first, and discards later."""

    def serve(device: BalloonDevice, ring: DeviceRing, element: Element) -> bool:
        ring.push(element.head, 0)
        call = ring.publish()
        time.sleep(0.5)  # who looks then may have to wait for a processor
        _punch(device, element)
        return call

    return _serving(serve)


def _boastful(_: Process) -> Process:
    """Says that it has written what it was given."""

    def serve(device: BalloonDevice, ring: DeviceRing, element: Element) -> bool:
        _punch(device, element)
        ring.push(element.head, sum(length_bytes for _, length_bytes, _ in element.buffers))
        return ring.publish()

    return _serving(serve)


def _mute(process: Process) -> Process:
    """Never calls."""
    return lambda *arguments: process(*arguments)._replace(call=False)


def _chatty(process: Process) -> Process:
    """Always calls."""
    return lambda *arguments: process(*arguments)._replace(call=True)


def _tired(process: Process) -> Process:
    """Discards nothing any more once the ring's indices have wrapped."""

    def tire(device: BalloonDevice, index: int, budget: int) -> Turn:
        device.inhibited = device.ledger.words[REPORTS] >= 1 << 16
        return process(device, index, budget)

    return tire


def _deaf_after_the_wrap(process: Process) -> Process:
    """Takes the event index for a number that only grows, and so calls no more once it has wrapped."""

    def compare(device: BalloonDevice, index: int, budget: int) -> Turn:
        turn = process(device, index, budget)
        return turn._replace(call=turn.call and device.ledger.words[REPORTS] < 1 << 16)

    return compare


@pytest.mark.parametrize(
    ("breaks", "vector"),
    [
        (_hasty, "reporting: gone when it is acknowledged, not later"),
        (_boastful, "reporting: the used length is what was written: nothing"),
        (_mute, "ring: a call when it is asked for, by flag"),
        (_mute, "ring: a call when it is asked for, by event index"),
        (_chatty, "ring: a call when it is asked for, by flag"),
        (_chatty, "ring: a call when it is asked for, by event index"),
        (_tired, "reporting: 70 000 elements: the ring's indices wrap"),
        (_tired, "reporting: 70 000 elements, no event index"),
        (_deaf_after_the_wrap, "reporting: 70 000 elements: the ring's indices wrap"),
    ],
)
def test_a_broken_device_is_caught(
    breaks: Callable[[Process], Process], vector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device with one thing wrong fails the vector that is about it, which the sound device passes."""
    _impatient(monkeypatch)
    _process(monkeypatch, breaks(BalloonDevice.process))
    with OwnDevice(RAM_BYTES) as device:
        assert not run_vector(VECTORS[NAMES.index(vector)], Bench(device)).passed


class _Served:
    """Our server at a socket, that a vector can end."""

    def __init__(self, path: Path) -> None:
        self._server = Server()
        self._server.listen(path)
        self._stop_fd = eventfd()
        self._thread = threading.Thread(target=self._server.run, args=(self._stop_fd,))
        self._thread.start()

    def end(self) -> None:
        """End it, unless it has been."""
        if self._thread.is_alive():
            eventfd_write(self._stop_fd)
            self._thread.join()
            os.close(self._stop_fd)
            self._server.close()


def test_what_a_device_that_dies_has_shown_before_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that goes away in a vector fails it; one that does not come back ends the run, and nothing is lost."""
    served = _Served(tmp_path / "host")

    def die(bench: Bench) -> str:
        bench.connect()
        served.end()
        return f"status {bench.transport.status}"

    dying = VECTORS[0]._replace(topic="made up", name="a deadly one", play=die)
    monkeypatch.setattr("pagetide.conformance.run.VECTORS", (VECTORS[0], dying, VECTORS[1]))
    try:
        assert cli.main(["conformance", "--device", str(tmp_path / "host"), "--json"]) == 1
    finally:
        served.end()
    out, err = capsys.readouterr()
    assert [(result["name"], result["passed"]) for result in json.loads(out)] == [
        (VECTORS[0].name, True), ("a deadly one", False)
    ]  # fmt: skip
    assert "the run ended after made up: a deadly one; no device answers at" in err


def test_a_device_that_comes_back_is_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that hangs up in a vector fails it alone if it is there for the next one."""
    served = _Served(tmp_path / "host")

    def anger(bench: Bench) -> str:
        bench.connect().accept(1 << 50)
        return f"status {bench.transport.status}"

    angering = VECTORS[0]._replace(topic="made up", name="an infuriating one", play=anger)
    monkeypatch.setattr("pagetide.conformance.run.VECTORS", (angering, VECTORS[0]))
    try:
        assert cli.main(["conformance", "--device", str(tmp_path / "host"), "--json"]) == 1
    finally:
        served.end()
    found = json.loads(capsys.readouterr().out)
    assert [(result["found"], result["passed"]) for result in found] == [
        ("the device goes away", False), ("all of them", True)
    ]  # fmt: skip


def test_a_socket_at_which_nobody_answers_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who accepts and then says nothing is no device, and is not waited for in every vector."""
    monkeypatch.setattr("pagetide.conformance.devices.catalogue._ANSWER_MAX_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        assert cli.main(["conformance", "--device", str(tmp_path / "silent")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "did not answer GET_FEATURES within 0.1 s" in err


def test_the_command_prints_json_and_says_how_it_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pagetide conformance --json` lists every vector, and its status is 0 when all passed."""
    monkeypatch.setattr("pagetide.conformance.run.VECTORS", VECTORS[:7])
    assert cli.main(["conformance", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f"{result['topic']}: {result['name']}" for result in found] == NAMES[:7]


def test_a_socket_that_somebody_serves_is_put_to_the_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every vector passes over a socket too, where guests come and go while the server runs."""
    served = _Served(tmp_path / "host")
    try:
        assert cli.main(["conformance", "--device", str(tmp_path / "host")]) == 0
    finally:
        served.end()
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert "has no way to ask for that" in " ".join(out.split())


def test_a_socket_that_nobody_serves_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A device that is not there ends with its reason and status 1."""
    assert cli.main(["conformance", "--device", "/nowhere.sock"]) == 1
    assert "No such file" in capsys.readouterr().err
