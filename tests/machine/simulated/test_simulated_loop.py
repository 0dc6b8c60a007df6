"""Virtual time: the order of events, and what ends a wait."""

import pytest

from pagetide.machine.simulated.loop import NEVER_PS, Doorbell, Loop, Signal, Task

pytestmark = pytest.mark.jit  # no kernel is called


def run(loop: Loop) -> None:
    """Let everything happen."""
    while loop.next_ps < NEVER_PS:
        loop.step()


def test_events_come_by_time_and_then_as_they_were_asked_for() -> None:
    """Of two at the same time the first one asked for comes first, and the clock shows their time."""
    loop = Loop()
    seen: list[tuple[str, int]] = []
    for name, at_ps in (("late", 7), ("first", 3), ("second", 3)):
        loop.at(at_ps, lambda name=name: seen.append((name, loop.now_ps)))  # type: ignore[misc]
    run(loop)
    assert seen == [("first", 3), ("second", 3), ("late", 7)]


def test_a_wait_ends_once_by_signal_or_by_time() -> None:
    """A task goes on at a notification or at its time, whatever is first, and the other does not wake it again."""
    loop = Loop()
    signal = Signal(loop)
    seen: list[int] = []

    def waits() -> Task:
        for until_ps in (10, 20, 100):
            yield signal, until_ps
            seen.append(loop.now_ps)

    loop.resume(waits())
    loop.at(15, signal.notify)
    run(loop)
    assert seen == [10, 15, 100]


def test_a_wait_that_is_over_is_forgotten() -> None:
    """A signal that nobody gives keeps no trace of those who waited for it for some time."""
    loop = Loop()
    signal = Signal(loop)

    def waits() -> Task:
        for _ in range(100):
            yield signal, loop.now_ps + 1

    loop.resume(waits())
    run(loop)
    assert loop.now_ps == 100
    assert not signal.waiting


def test_a_doorbell_is_not_forgotten() -> None:
    """What rang while nobody waited ends the next wait at once, and only that one."""
    loop = Loop()
    bell = Doorbell(loop)
    seen: list[int] = []

    def waits() -> Task:
        yield from loop.sleep(5)
        for _ in range(2):
            yield from bell.wait(50)
            seen.append(loop.now_ps)

    loop.resume(waits())
    loop.at(1, bell.ring)
    loop.at(2, bell.ring)
    run(loop)
    assert seen == [5, 50]


def test_waiting_for_something_looks_at_each_notification() -> None:
    """It goes on once the condition holds."""
    loop = Loop()
    signal = Signal(loop)
    values: list[int] = []
    seen: list[int] = []

    def waits() -> Task:
        yield from loop.wait_for(signal, lambda: len(values) == 2)
        seen.append(loop.now_ps)

    def add() -> None:
        values.append(0)
        signal.notify()

    loop.resume(waits())
    loop.at(3, add)
    loop.at(4, add)
    run(loop)
    assert seen == [4]
