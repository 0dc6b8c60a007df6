"""When faults begin and end, by the stream's clock."""

import threading
import time

import pytest

from pagetide.machine.faults import Fault, parse_faults
from pagetide.machine.live.fault_player import SLICE_S, FaultPlayer, SignalledProcess
from pagetide.machine.messages import ClockStarted

pytestmark = [pytest.mark.alone, pytest.mark.jit]


class Stage:
    """Notes what begins and ends, and when."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, float]] = []
        self._changed = threading.Condition()

    def begin(self, fault: Fault) -> None:
        self._note("begin", fault)

    def end(self, fault: Fault) -> None:
        self._note("end", fault)

    def _note(self, what: str, fault: Fault) -> None:
        with self._changed:
            self.events.append((what, fault.kind, time.monotonic()))
            self._changed.notify_all()

    def await_events(self, count: int) -> list[tuple[str, str]]:
        """The first so many events, as soon as they have happened."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events) >= count, 10)
        return [(what, kind) for what, kind, _ in self.events[:count]]


def play(stage: Stage, *texts: str) -> FaultPlayer:
    """A player of these faults."""
    return FaultPlayer(parse_faults(texts), stage.begin, stage.end)


def test_a_fault_begins_when_the_clock_shows_its_time_and_lasts() -> None:
    """Not before, and it ends when its time is over, in real time."""
    stage = Stage()
    with play(stage, "stop@1:0.05", "off@1.02:0.2") as player:
        now_s = time.monotonic()
        player.clock_started(ClockStarted(0.9, 2.0, now_s))
        assert stage.await_events(4) == [("begin", "stop"), ("begin", "off"), ("end", "stop"), ("end", "off")]
    times_s = [at_s - now_s for *_, at_s in stage.events]
    for at_s, least_s in zip(times_s, (0.1, 0.12, 0.15, 0.32), strict=True):
        assert at_s >= least_s - 1e-6


def test_while_the_clock_stands_still_no_fault_begins() -> None:
    """A fault in the middle of a stretch waits until the clock goes on, though time passes."""
    stage = Stage()
    with play(stage, "off@0.5:60", "stop@1:60") as player:
        player.clock_started(ClockStarted(0.0, 0.5, time.monotonic() - 30))  # it has stood at 0.5 for long
        assert stage.await_events(1) == [("begin", "off")]
        before_s = time.monotonic()
        player.clock_started(ClockStarted(0.5, 2.0, before_s - 0.45))
        stage.await_events(2)
    assert stage.events[1][2] >= before_s + 0.05 - 1e-6


def test_faults_that_are_on_end_with_the_player() -> None:
    """A host that is stopped as the run ends is not left so; what did not begin does not end."""
    stage = Stage()
    player = play(stage, "stop@0:60", "off@1:60")
    player.clock_started(ClockStarted(0.0, 0.5, time.monotonic()))
    stage.await_events(1)
    player.close()
    player.close()
    assert [(what, kind) for what, kind, _ in stage.events] == [("begin", "stop"), ("end", "stop")]


@pytest.mark.parametrize("factor", [2.0, 10.0])
def test_a_slow_process_is_stopped_for_most_of_the_time(factor: float) -> None:
    """Stops and continues alternate, and it ends with the process running."""
    sent: list[str] = []
    enough = threading.Event()

    def send(signal_: int) -> None:
        sent.append(signal_.name)  # type: ignore[attr-defined]
        if len(sent) >= 20:
            enough.set()

    process = SignalledProcess(send)
    fault = Fault("slow", 0.0, 1.0, factor=factor)
    start_s = time.monotonic()
    process.begin(fault)
    assert enough.wait(10)
    process.end(fault)
    assert time.monotonic() - start_s >= 9 * SLICE_S
    assert sent[:20] == ["SIGSTOP", "SIGCONT"] * 10
    assert sent[-1] == "SIGCONT"


@pytest.mark.parametrize("failing", ["begin", "end"])
def test_a_fault_that_cannot_be_played_is_told_and_ends_the_playing(failing: str) -> None:
    """Whoever waits hears of it at once, later faults do not begin, and what is on is ended nevertheless."""
    stage, told = Stage(), threading.Event()

    def call(what: str, fault: Fault) -> None:
        (stage.begin if what == "begin" else stage.end)(fault)
        if what == failing and fault.kind == "off":
            raise ProcessLookupError("no such process")

    player = FaultPlayer(
        parse_faults(["stop@0:60", "off@0.01:0.01", "ring-full@0.2:1"]),
        lambda fault: call("begin", fault), lambda fault: call("end", fault), told.set,
    )  # fmt: skip
    player.clock_started(ClockStarted(0.0, 60.0, time.monotonic()))
    assert told.wait(10)
    player.close()
    assert player.failure == "a fault could not be played: no such process"
    happened = [(what, kind) for what, kind, _ in stage.events]
    assert ("begin", "ring-full") not in happened
    assert happened[:2] == [("begin", "stop"), ("begin", "off")]
    assert ("end", "stop") in happened


def test_a_process_that_could_not_be_slowed_is_told_of_when_it_ends() -> None:
    """The thread that slows it down dies of a signal that cannot be sent; `end` raises what it died of."""
    sent: list[int] = []

    def send(signal_: int) -> None:
        sent.append(signal_)
        if len(sent) == 3:
            raise ProcessLookupError("gone")

    process = SignalledProcess(send)
    process.begin(Fault("slow", 0.0, 1.0, factor=2.0))
    deadline_s = time.monotonic() + 10
    while len(sent) < 3 and time.monotonic() < deadline_s:
        time.sleep(SLICE_S)
    with pytest.raises(ProcessLookupError, match="gone"):
        process.end(Fault("slow"))
