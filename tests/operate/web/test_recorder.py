"""What the page's process keeps of what it looks at."""

import json
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pagetide.host.device.allowance import SHARE
from pagetide.host.memory.block_states import PIECE_NS
from pagetide.operate.watch.all_vms import Watching
from pagetide.operate.watch.guest_map import DAEMON_BURST_S
from pagetide.operate.web.recorder import LOOK_S, Recorder, run_lengths
from pagetide.operate.web.told_lines import Event, LogLines
from tests.operate.scripted_server import served
from tests.operate.watch.listed_guest import listed_guest

STATES = "hhhr" * 8


@pytest.fixture
def asked() -> list[str]:
    """What the daemon was asked."""
    return []


@pytest.fixture
def control(tmp_path: Path, asked: list[str], clock: "Clock") -> Iterator[Path]:
    """A daemon with two guests, each with a map that is told in two pieces, which takes as long as pieces may take."""

    def serve(client: socket.socket) -> None:
        while line := client.recv(4096):
            request = json.loads(line)
            asked.append(f"{request['command']} {request.get('guest', '')} {request.get('first', '')}".strip())
            answer: dict[str, object] = {"guests": [listed_guest("a", held_bytes=7), listed_guest("b")], "waiting": []}
            if request["command"] == "map":
                first = request["first"]
                clock.now_s += clock.piece_s
                piece = {"first": first, "blocks": 32, "states": STATES[first : first + 16], "regions": [[0, 64, 0]]}
                answer = {"page_map": piece}
            client.sendall(msgspec.json.encode(answer) + b"\n")

    with served(tmp_path / "control", serve) as path:
        yield path


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.piece_s = PIECE_NS / 1e9

    def __call__(self) -> float:
        self.now_s += 1e-4  # what is done takes a little
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """One that both sides have."""
    return Clock()


@pytest.fixture
def recorder(control: Path, clock: Clock) -> Recorder:
    """One that has not looked yet."""
    return Recorder(Watching(control, None), control, clock_s=clock, on_look=lambda: None)


def test_a_look_is_told_and_what_the_log_said_is_kept(recorder: Recorder) -> None:
    """The look for the table; an event for whoever opens its guest."""
    recorder.note(Event(5.0, "warning", "a", "rests"))
    recorder.step()
    told = json.loads(recorder.message)
    assert [vm["name"] for vm in told["vms"]] == ["a", "b"]
    assert recorder.events("a") == [Event(5.0, "warning", "a", "rests")]
    assert recorder.events("b") == []
    assert recorder.curves("a", 60.0)["held_bytes"] == [0]
    assert (recorder.asked_as("a"), recorder.asked_as("c")) == ("a", None)


def test_maps_are_read_piece_by_piece_between_looks(recorder: Recorder, clock: Clock, asked: list[str]) -> None:
    """A guest that somebody looks at comes first, and no two pieces are asked for at once."""
    waits_s = [recorder.step()]
    assert recorder.map_at("b", float("inf")) is None
    while "map a 16" not in asked:
        waits_s.append(recorder.step())
        clock.now_s += waits_s[-1]
    maps = [each for each in asked if each.startswith("map")]
    assert maps == ["map b 0", "map b 16", "map a 0", "map a 16"]
    assert all(0 <= wait_s <= LOOK_S for wait_s in waits_s)
    told = recorder.map_at("b", float("inf"))
    assert told is not None
    assert told["states"] == run_lengths(STATES)
    assert len(told["times"]) == 1
    assert recorder.nbytes > 0


def test_the_first_map_is_shown_while_it_is_read(recorder: Recorder, clock: Clock, asked: list[str]) -> None:
    """What was read, and the rest not known: of a large guest the rest may take a while."""
    while "map a 0" not in asked:
        clock.now_s += recorder.step()
    told = recorder.map_at("a", float("inf"))
    assert told is not None
    assert told["states"] == [*run_lengths(STATES[:16]), ("u", 16)]
    assert told["times"] == [told["t_s"]]


def test_pieces_take_a_part_of_what_all_clients_of_the_daemon_have(
    recorder: Recorder, clock: Clock, asked: list[str]
) -> None:
    """However many maps are due, and though somebody looks at one: the rest is for `ctl` and metrics."""
    clock.piece_s *= 10
    start_s = clock.now_s
    while clock.now_s < start_s + 120.0:
        clock.now_s += recorder.step()
        recorder.map_at("b", float("inf"))
    took_s = clock.piece_s * sum(each.startswith("map") for each in asked)
    assert SHARE / 6 * 120.0 < took_s < DAEMON_BURST_S + SHARE / 3 * 120.0


def test_any_name_may_be_asked_for_while_it_looks(recorder: Recorder, clock: Clock) -> None:
    """From another thread, as browsers do; names that nobody has are not kept, and do not hold looks up."""
    over, many = threading.Event(), threading.Semaphore(0)

    def ask() -> None:
        number = 0
        while not over.is_set():
            number += 1
            assert recorder.map_at(f"nobody {number}", 0.0) is None
            if number % 5000 == 0:
                many.release()

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(30):
            assert many.acquire(timeout=60)
            clock.now_s += LOOK_S
            recorder.step()
    finally:
        over.set()
        asking.join()
        sys.setswitchinterval(before_s)
    assert recorder.asked_as("a") == "a"


def test_letters_that_follow_one_another_are_counted() -> None:
    """So a map is short."""
    assert run_lengths("hhhrn") == [("h", 3), ("r", 1), ("n", 1)]
    assert run_lengths("") == []


def test_the_daemons_log_is_told_while_it_is_wanted() -> None:
    """A line an event, with the guest whom it is about; what is long is cut, so that a line fits into the pipe."""
    lines: list[bytes] = []
    log = logging.getLogger("pagetide.test")
    with LogLines(lines.append):
        log.warning("kept %s waiting", "everybody", extra={"guest": "vm1"})
        log.error("x" * 5000)
    log.warning("nobody hears this")
    first, second = (msgspec.json.decode(line, type=Event) for line in lines)
    assert (first.level, first.guest, first.text) == ("warning", "vm1", "kept everybody waiting")
    assert second.guest is None
    assert all(line.endswith(b"\n") and len(line) < 4096 for line in lines)


def test_no_event_ends_who_logs_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a guest whose name is no UTF-8, which is told nearly so; nor an event that cannot be told at all."""
    lines: list[bytes] = []

    def tell(line: bytes) -> None:
        lines.append(line)
        if b"unheard" in line:
            raise BrokenPipeError("gone")

    told = LogLines(tell)
    told.handle(logging.makeLogRecord({"msg": "attached at %s", "args": ("\udcff.sock",), "guest": "vm\udcff"}))
    told.handle(logging.makeLogRecord({"msg": "unheard"}))
    event = msgspec.json.decode(lines[0], type=Event)
    assert (event.guest, event.text) == ("vm?", "attached at ?.sock")
    assert "BrokenPipeError: gone" in capsys.readouterr().err
