"""What the loop's step does by itself, without Python, and what it leaves."""

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pagetide.host.daemon.process import SignalWaker
from pagetide.host.daemon.server import Server
from pagetide.host.device.allowance import IN_VAIN, Use
from pagetide.host.device.queues.offered import ANSWER, CALL_ERROR, FAILED, LEFT, USED_NS
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.session import _MESSAGES_PER_TURN
from pagetide.host.sharing.hold_ups import SUSPECT_S, HoldUps
from pagetide.virtio.balloon import CONFIG_POISON_VAL
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from pagetide.virtio.vhost_user.payloads import U64, ConfigSpace, encode_config
from tests.host.daemon.test_fence import Rig
from tests.host.guest.descriptor_kinds import fill
from tests.host.guest.served_guest import TIMEOUT_S
from tests.host.guest_ring import PAGE, RING_PAGES

pytestmark = pytest.mark.jit

OUTSIDE = 1 << 20
FAILED_ANSWER = 4
"""A turn in which a discarding call failed (turn.py)."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server that runs when it is told to, with a guest whose queue is offered."""
    rig = Rig(tmp_path)
    rig.serving(lambda: rig.bad.report([(RING_PAGES, 1)]))
    yield rig
    rig.close()


def _python(*_: object) -> NoReturn:
    raise AssertionError("a turn went through Python")


@pytest.mark.alone  # the same
def test_a_report_is_served_without_python(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kick in the ring, a call out of it, and between them the ledger, the lag and the time that has passed."""
    monkeypatch.setattr(AttachedGuest, "turn", _python)
    rig.bad.ring.driver.arm_call()
    rig.bad.submit([(RING_PAGES + 1, 4)])
    before_ns = time.monotonic_ns()
    rig.server._events._loop[8] = before_ns - 1000  # it has looked just now
    rig.server.run_once(0)
    assert os.eventfd_read(rig.bad.call_fd) >= 1
    assert len(rig.bad.ring.driver.take_used()) == 1
    assert rig.bad_guest.ledger.snapshot()["returned_bytes"] == 5 * PAGE
    assert rig.bad_guest.lag.count == 2
    assert rig.server._events.take_passed_s() > 0


def _uses(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[Use]:
    """What turns that went through Python were good for."""
    turn, uses = AttachedGuest.turn, list[Use]()

    def noting(guest: AttachedGuest) -> Use:
        uses.append(turn(guest))
        return uses[-1]

    monkeypatch.setattr(AttachedGuest, "turn", noting)
    return uses


def test_what_is_in_vain_is_charged_with_the_time_of_the_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report outside of memory: Python finishes the turn, calls, and charges what the kernel took of it, too."""
    uses = _uses(rig, monkeypatch)
    spent_s = rig.server._costs.spent_s(rig.bad_guest)
    rig.bad.submit([(OUTSIDE, 4)])
    rig.server.run_once(0)
    assert len(rig.bad.ring.driver.take_used()) == 1
    (use,) = uses
    assert use.in_vain == IN_VAIN.in_vain
    assert use.served_s > 0
    assert rig.server._costs.spent_s(rig.bad_guest) - spent_s > use.served_s
    assert rig.bad_guest.lag.count == 2


def test_a_kick_after_a_turn_that_was_left_is_not_lost(rig: Rig) -> None:
    """A kick of an empty ring is left to Python; before that has dealt with it, an element comes, with a kick."""
    os.eventfd_write(rig.bad.kick_fd, 1)
    assert rig.server._events.look(0) == 1
    rig.server._events.act(1)
    rig.bad.submit([(RING_PAGES + 1, 1)])
    os.eventfd_write(rig.bad.kick_fd, 1)
    rig.server.run_once(0)
    rig.server.run_once(0)
    assert len(rig.bad.ring.driver.take_used()) == 1


@pytest.mark.alone  # a turn amid which others had the processor for long is left to Python, and charged for
def test_pages_that_were_served_in_passing_pay_for_messages(rig: Rig) -> None:
    """What the step's turns earned is there when the next message is to be paid for."""
    rig.bad_guest._kicks.take_earned_pages()
    spent_s = rig.server._costs.spent_s(rig.bad_guest)
    for page in range(64):
        rig.bad.submit([(RING_PAGES + 4 * page, 4)])
        rig.server.run_once(0)
        rig.bad.ring.driver.take_used()
    pages = rig.bad_guest._kicks.take_earned_pages()
    assert pages == 64 * 4
    assert rig.server._costs.spent_s(rig.bad_guest) == spent_s
    assert rig.bad_guest._kicks.take_earned_pages() == 0


@pytest.mark.parametrize("wish", ["paused", "inhibited"])
def test_a_wish_counts_from_the_next_kick_on(rig: Rig, wish: str) -> None:
    """What was offered before it is offered anew as is wanted now, or not at all."""
    rig.bad_guest.wishes.want(**{wish: True})
    rig.bad_guest.follow_wishes()
    rig.bad.submit([(RING_PAGES + 1, 1)])
    rig.server.run_once(0)
    assert len(rig.bad.ring.driver.take_used()) == (wish == "inhibited")
    assert rig.bad_guest.ledger.snapshot()["discarded_bytes"] == PAGE
    rig.bad_guest.wishes.want(**{wish: False})
    rig.bad_guest.follow_wishes()
    rig.server.run_once(0)
    assert rig.bad_guest.ledger.snapshot()["discarded_bytes"] == (PAGE if wish == "inhibited" else 2 * PAGE)


def test_memory_that_was_replaced_is_served_where_it_is(rig: Rig) -> None:
    """The table is another array after SET_MEM_TABLE: the step has the new one, and the ring's new place."""
    ring = rig.bad.ring
    rig.serving(lambda: rig.bad.channel.set_mem_table([ring.region], [ring.ram.fd]))
    rig.bad.submit([(RING_PAGES + 1, 2)])
    rig.serving(rig.bad.wait_used)
    assert rig.bad_guest.ledger.snapshot()["discarded_bytes"] == 3 * PAGE


@pytest.mark.alone  # the same
def test_who_kept_the_loop_is_served_by_python_from_then_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that the step found too long makes a suspect, whose turns are timed one by one."""
    rig.server._guests._hold_ups = HoldUps()
    uses = _uses(rig, monkeypatch)
    for page in range(4):
        rig.bad.submit([(RING_PAGES + page, 1)])
        rig.server.run_once(0)
        rig.bad.ring.driver.take_used()
        if page == 1:
            assert not uses
            rig.server._guests._hold_ups.note(rig.bad_guest, SUSPECT_S)
            rig.serving(lambda: rig.bad.channel.get_config(0, 4))
    assert len(uses) == 2


def test_a_signal_between_two_waits_ends_the_next() -> None:
    """Its handler is Python's, and runs at once, however long the loop would have waited in its kernel."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with Server() as server:
            waker = SignalWaker(server)
            signal.raise_signal(signal.SIGUSR1)
            start_s = time.monotonic()
            server.run_once(TIMEOUT_S, linger=True)
            assert time.monotonic() - start_s < TIMEOUT_S / 2
            waker.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_what_was_sent_before_a_kick_is_dealt_with_before(rig: Rig) -> None:
    """A driver says what pages must read as, waits for no answer, and reports at once: nothing is discarded."""
    before = rig.bad_guest.ledger.snapshot()
    poison = encode_config(ConfigSpace(CONFIG_POISON_VAL, 4, 0, (0xAA).to_bytes(4, "little")))
    rig.bad.channel._connection._socket.send(encode(Message(Request.SET_CONFIG, 0, poison)))
    rig.bad.submit([(RING_PAGES + 1, 4)])
    rig.server.run_once(0)
    rig.server.run_once(0)
    after = rig.bad_guest.ledger.snapshot()
    assert after["skipped_poisoned_bytes"] - before["skipped_poisoned_bytes"] == 4 * PAGE
    assert after["discarded_bytes"] == before["discarded_bytes"]


def test_a_kick_waits_for_all_that_was_sent_before_it(rig: Rig) -> None:
    """More messages than one turn takes, and the one that matters is the last: nothing is discarded before it."""
    before = rig.bad_guest.ledger.snapshot()
    values = [0] * (2 * _MESSAGES_PER_TURN) + [0xAA]
    for value in values:
        poison = encode_config(ConfigSpace(CONFIG_POISON_VAL, 4, 0, value.to_bytes(4, "little")))
        rig.bad.channel._connection._socket.send(encode(Message(Request.SET_CONFIG, 0, poison)))
    rig.bad.submit([(RING_PAGES + 1, 4)])
    for _ in range(len(values)):
        rig.server.run_once(0)
    after = rig.bad_guest.ledger.snapshot()
    assert after["skipped_poisoned_bytes"] - before["skipped_poisoned_bytes"] == 4 * PAGE
    assert after["discarded_bytes"] == before["discarded_bytes"]


def test_as_many_messages_as_a_turn_takes_hold_up_nothing(rig: Rig) -> None:
    """With nothing behind them a kick is served at once, though there might have been more."""
    config = encode_config(ConfigSpace(CONFIG_POISON_VAL, 4, 0, bytes(4)))
    for _ in range(_MESSAGES_PER_TURN):
        rig.bad.channel._connection._socket.send(encode(Message(Request.SET_CONFIG, 0, config)))
    rig.bad.submit([(RING_PAGES + 1, 4)])
    rig.server.run_once(0)
    rig.server.run_once(0)
    assert len(rig.bad.ring.driver.take_used()) == 1


@pytest.mark.alone
def test_a_call_that_blocks_is_time_that_the_guest_kept_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eventfd that is full and blocks until somebody reads it: the turn is left, with that time, and called once."""
    uses = _uses(rig, monkeypatch)
    fd = rig.bad.call_fd
    rig.bad.ring.driver.arm_call()
    rig.bad.submit([(RING_PAGES + 1, 1)])
    fill(fd)
    reader = threading.Timer(20 * SUSPECT_S, lambda: os.eventfd_read(fd))
    reader.start()
    rig.server.run_once(0)
    reader.join()
    os.set_blocking(fd, False)
    assert [use.blocked_s >= SUSPECT_S for use in uses] == [True]
    assert os.eventfd_read(fd) == 1


@pytest.mark.parametrize("in_python", [False, True])
def test_nobody_reads_the_calls(rig: Rig, monkeypatch: pytest.MonkeyPatch, *, in_python: bool) -> None:
    """The other end is closed, as of a User-Mode Linux that is being killed: served all the same, and not given up."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = U64.pack(rig.bad.index), (theirs.fileno(),)
        rig.serving(lambda: rig.bad.channel.call(Request.SET_VRING_CALL, *call))
    if in_python:
        rig.bad_guest.serve_apart(True)
    else:
        monkeypatch.setattr(AttachedGuest, "turn", _python)
    rig.bad.ring.driver.arm_call()
    rig.bad.submit([(RING_PAGES + 1, 1)])
    rig.server.run_once(0)
    assert len(rig.bad.ring.driver.take_used()) == 1
    assert rig.bad_guest in rig.server.guests


def test_a_failure_is_the_turns_own(rig: Rig) -> None:
    """What a left turn says of its discarding calls holds, whatever another queue of the device does before."""
    offered = next(one for one in rig.bad_guest._kicks._offered.values() if one is not None)
    offered.words[LEFT], offered.words[ANSWER], offered.words[FAILED] = 1, FAILED_ANSWER, errno.ENOSPC
    left = offered.take_left()
    assert left is not None
    assert left.turn().failure == errno.ENOSPC


def test_a_left_turn_that_ends_its_guest_is_charged_with_the_time_of_the_step(rig: Rig) -> None:
    """Whoever is let go for it pays all the same: the front-end comes back with what it owes."""
    kicks = rig.bad_guest._kicks
    index, offered = next((index, one) for index, one in kicks._offered.items() if one is not None)
    offered.words[LEFT], offered.words[USED_NS], offered.words[CALL_ERROR] = 1, 5_000_000, errno.EBADF
    kicks.make_ready(index)
    with pytest.raises(GuestGoneError, match="cannot be signalled") as gone:
        rig.bad_guest.turn()
    assert gone.value.held_up_s == pytest.approx(0.005)


def test_what_a_look_has_found_is_acted_on_before_a_rest_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on may close what is ready: then nothing is to be called for it, and the loop goes on."""
    events = rig.server._events
    listener = next(fd for fd in events._actions if fd not in (rig.bad_guest.fileno(), rig.bad.kick_fd))
    called: list[int] = []
    events._actions[listener] = lambda: called.append(listener)
    monkeypatch.setattr("pagetide.host.daemon.server.go_on", lambda *_: events.unwatch(listener))
    monkeypatch.setattr(rig.server._costs, "take_rested", lambda: iter([rig.bad_guest]))
    events._others[0] = listener
    monkeypatch.setattr(events, "look", lambda *_, **__: 1)
    rig.server.run_once(0)
    assert called == [listener]
    assert listener not in events._actions
