"""A guest that keeps the loop waiting, and does not use it, rests for that; nobody rests for what others did."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pagetide.host.device.allowance import GUEST_BURST_S, HELD_REST_MAX_S, SHARE, Use
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.sharing import hold_ups
from pagetide.host.sharing.costs import Costs
from pagetide.host.sharing.hold_ups import HELD_MIN_S, SUSPECT_S, WATCHED_S, HoldUps, Waits, thread_waits
from tests.host.daemon.test_fence import Rig
from tests.host.good_and_bad import BAD, GOOD
from tests.host.guest_ring import RING_PAGES

pytestmark = pytest.mark.alone


class Machine:
    """A clock and what a thread has waited for, set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits: Waits | None = Waits(5.0, 0)
        self.read = 0
        self.hold_ups = HoldUps(clock_s=lambda: self.now_s, waits=self._read)

    def _read(self) -> Waits | None:
        self.read += 1
        return self.waits

    def action(self, took_s: float, used_s: float = 0.0, *, queue_s: float = 0.0, faults: int = 0) -> float:
        """An action of the guest's: how long it held the loop up."""
        self.hold_ups.begin("guest")
        self.now_s += took_s
        if self.waits is not None:
            self.waits = Waits(self.waits.queue_s + queue_s, self.waits.major_faults + faults)
        return self.hold_ups.end("guest", used_s)


def test_only_who_kept_the_loop_once_is_watched() -> None:
    """Nothing is read for others, and the first time is not held against anybody."""
    machine = Machine()
    assert [machine.action(0.5 * SUSPECT_S), machine.action(1.0, 1.0)] == [0.0, 0.0]
    assert machine.read == 0
    assert machine.action(1.0) == 0.0
    assert machine.hold_ups.is_suspect("guest")
    assert machine.action(0.5, 0.1) == pytest.approx(0.4)
    assert machine.action(0.5, 0.5) == 0.0


def test_what_is_not_the_guests_doing_is_taken_out() -> None:
    """Others on the processor, pages that come from swap, and a kernel that does not tell."""
    machine = Machine()
    machine.action(1.0)
    assert machine.action(0.5, 0.1, queue_s=0.3) == pytest.approx(0.1)
    assert machine.action(0.5, 0.1, queue_s=0.4) == 0.0
    assert machine.action(0.5, 0.1, faults=1) == 0.0
    assert machine.action(0.9 * HELD_MIN_S) == 0.0
    machine.waits = None
    assert machine.action(0.5) == 0.0
    machine.hold_ups.forget("guest")
    assert not machine.hold_ups.is_suspect("guest")


def test_who_keeps_nobody_waiting_for_long_enough_is_watched_no_more() -> None:
    """A suspect may have become one for what others did; who kept the loop again is one from then on."""
    machine = Machine()
    machine.action(1.0)
    machine.now_s += 0.9 * WATCHED_S
    assert machine.action(0.5, 0.1) == pytest.approx(0.4)
    machine.now_s += 0.9 * WATCHED_S
    machine.action(0.001, 0.001)
    assert machine.hold_ups.is_suspect("guest")
    machine.now_s += 0.2 * WATCHED_S
    machine.action(0.001, 0.001)
    assert not machine.hold_ups.is_suspect("guest")


def test_a_rest_is_as_long_as_the_share_asks_for() -> None:
    """Holding everybody up for a hundredth of a second is half a second of rest, and nobody rests for over a minute."""
    costs: Costs[str] = Costs()
    costs.enter("guest", GUEST_BURST_S)
    assert costs.hold_up("guest", 0.01)
    assert costs.rests_until_s("guest") == pytest.approx(0.01 / SHARE)
    assert not costs.hold_up("guest", 0.001)
    assert costs.rests_until_s("guest") == pytest.approx(0.01 / SHARE)
    assert not costs.hold_up("guest", 100.0)
    assert costs.rests_until_s("guest") == HELD_REST_MAX_S


def test_a_thread_is_told_apart_from_others() -> None:
    """Sleeping is no time in the queue."""
    before = thread_waits()
    assert before is not None
    threading.Thread(target=time.sleep, args=(0.0,)).start()
    time.sleep(0.2)
    after = thread_waits()
    assert after is not None
    assert after.queue_s - before.queue_s < 0.15


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server with two guests."""
    with closing(Rig(tmp_path)) as rig:
        yield rig


def served_by_turns(rig: Rig, seconds: float) -> int:
    """How many reports of the good guest's come back in this time, while the bad one kicks without end."""

    def rounds() -> int:
        end_s, count = time.monotonic() + seconds, 0
        while time.monotonic() < end_s:
            os.eventfd_write(rig.bad.kick_fd, 1)
            assert rig.good.report([(RING_PAGES, 1)])
            count += 1
        return count

    return rig.serving(rounds)


HOLD_S = 0.1


@pytest.fixture
def held(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad guest's turns sleep. Waits of threads for the interpreter, which a daemon has not, are shorter."""
    monkeypatch.setattr(hold_ups, "SUSPECT_S", 0.5 * HOLD_S)
    monkeypatch.setattr(hold_ups, "HELD_MIN_S", 0.5 * HOLD_S)
    rig.server._guests._hold_ups = HoldUps()
    turn = AttachedGuest.turn

    def held_turn(guest: AttachedGuest) -> Use:
        if guest.name == BAD:
            time.sleep(HOLD_S)
        return turn(guest)

    monkeypatch.setattr(AttachedGuest, "turn", held_turn)


@pytest.mark.parametrize("watched", [False, True])
def test_who_keeps_all_waiting_is_served_less_than_the_others(
    rig: Rig, held: None, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns that sleep, as on an inode's lock, cost the others next to nothing; without the watch all their time."""
    if not watched:
        monkeypatch.setattr(HoldUps, "end", lambda *_: 0.0)
    count = served_by_turns(rig, 2.0)
    bad = next(guest for guest in rig.server.guests if guest.name == BAD)
    assert rig.server._costs.is_resting(bad) == watched
    assert (count > 3 * 2.0 / HOLD_S) == watched
    assert not rig.server._costs.is_resting(next(guest for guest in rig.server.guests if guest.name == GOOD))


def test_who_leaves_does_not_leave_its_rest_behind(rig: Rig, held: None) -> None:
    """A front-end that hangs up and comes back waits at its socket for as long as it would have rested."""
    served_by_turns(rig, 1.0)
    until_s = rig.server._costs.rests_until_s(rig.bad_guest)
    assert until_s > rig.server._costs.clock_s
    origin = rig.server._guests._origins[rig.bad_guest]
    rig.server._guests.end(rig.bad_guest, "disconnected", left=True)
    assert rig.server._costs.rests_until_s(origin) == until_s
