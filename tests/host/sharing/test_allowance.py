"""What a guest may use in vain: how much at once, how much for good, and that honest guests never notice."""

import copy
import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.daemon import reception
from pagetide.host.daemon.server import Server
from pagetide.host.device.allowance import (
    CHARGE_MAX_S,
    GUEST_BURST_S,
    LISTENER_BURST_S,
    RESTED_S,
    SHARE,
    START_S,
    Allowance,
)
from pagetide.host.sharing.costs import Costs
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import U64
from tests.host.good_and_bad import GoodAndBad
from tests.host.guest_ring import PAGE, RING_PAGES

pytestmark = pytest.mark.alone

LONG_S = 1000.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), max_size=60))
def test_who_spends_without_end_gets_a_share_and_a_burst(actions: list[tuple[float, float]]) -> None:
    """Who rests as told uses no more than the burst, the share of the time, and one last action."""
    now_s, used_s = 0.0, 0.0
    allowance = Allowance(GUEST_BURST_S, now_s)
    for asked_s, idle_s in actions:
        assert used_s <= GUEST_BURST_S + SHARE * now_s + CHARGE_MAX_S + 1e-9
        spent_s = min(asked_s, CHARGE_MAX_S)
        used_s += spent_s
        allowance.spend(asked_s, now_s)
        rest_s = allowance.rest_s(now_s)
        assert rest_s <= (CHARGE_MAX_S + RESTED_S) / SHARE + 1e-9
        now_s += rest_s + idle_s
        assert allowance.rest_s(now_s + 1e-9) == 0
        if rest_s:
            allowance_after = copy.copy(allowance)
            allowance_after.spend(RESTED_S / 2, now_s)
            assert allowance_after.rest_s(now_s) == 0, "a rest that is over is followed by some work, not by the next"
    assert allowance.spent_s == pytest.approx(used_s)


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.lists(
        st.tuples(st.integers(0, 11), st.one_of(st.none(), st.floats(0, CHARGE_MAX_S)), st.floats(0, 1)), max_size=120
    ),
)
def test_guests_of_one_socket_share_what_they_have(count: int, actions: list[tuple[int, float | None, float]]) -> None:
    """However many come, go (None) and come back, they use what one socket may, and each one last action."""
    costs: Costs[str] = Costs()
    costs.enter("socket", LISTENER_BURST_S)
    guests: dict[str, None] = {}
    used_s, most = 0.0, 0
    for number, spent_s, idle_s in actions:
        guest = f"guest {number % count}"
        if guest not in guests and not costs.is_resting("socket"):
            costs.enter(guest, START_S, at="socket")
            guests[guest] = None
        elif guest in guests and spent_s is None:
            costs.leave(guest)
            del guests[guest]
        elif guest in guests and not costs.is_resting(guest):
            costs.charge(guest, spent_s or 0.0)
            used_s += spent_s or 0.0
        costs.must_rest("socket")
        most = max(most, len(guests))
        costs.clock_s += idle_s
        list(costs.take_rested())
        assert used_s <= LISTENER_BURST_S + most * CHARGE_MAX_S + SHARE * costs.clock_s + 1e-6


def test_what_a_socket_owes_is_not_forgotten() -> None:
    """Many that overdraw and leave together, again and again, use no more than a share; nobody comes while it owes."""
    costs: Costs[int] = Costs()
    costs.enter(0, LISTENER_BURST_S)
    used_s = 0.0
    for _ in range(100_000):
        guests: list[int] = []
        while not costs.must_rest(0) and not costs.is_resting(0) and len(guests) < 50:
            guests.append(len(guests) + 1)
            costs.enter(guests[-1], START_S, at=0)
        for guest in guests:
            while not costs.is_resting(guest):
                costs.charge(guest, 0.01)
                used_s += 0.01
        for guest in guests:
            costs.leave(guest)
        costs.clock_s += 0.01
        list(costs.take_rested())
    assert used_s <= LISTENER_BURST_S + 50 * 0.01 + SHARE * costs.clock_s


def _used_s(costs: Costs[str], guests: list[str], duration_s: float, each_s: float, every_s: float) -> float:
    """What guests use in vain in this time: so much each, every so often, unless they rest."""
    used_s, end_s = 0.0, costs.clock_s + duration_s
    while costs.clock_s < end_s:
        for guest in guests:
            if not costs.is_resting(guest):
                costs.charge(guest, each_s)
                used_s += each_s
        costs.clock_s += every_s
        list(costs.take_rested())
    return used_s


def test_many_connections_of_a_bad_front_end_take_what_one_takes() -> None:
    """Sixteen that spend all they can have 2 % between them, not each; before their socket shared, they had 32 %."""
    shares = []
    for socket_of in ("socket", None):
        costs: Costs[str] = Costs()
        costs.enter("socket", LISTENER_BURST_S)
        guests = [f"guest {number}" for number in range(16)]
        for guest in guests:
            costs.enter(guest, GUEST_BURST_S if socket_of is None else START_S, at=socket_of)
        _used_s(costs, guests, 100.0, 0.001, 0.02)
        shares.append(_used_s(costs, guests, 200.0, 0.001, 0.02) / 200.0)
    assert 0.7 * SHARE < shares[0] < 1.3 * SHARE
    assert shares[1] > 10 * SHARE


def test_an_honest_guest_does_not_notice_bad_ones_at_its_socket() -> None:
    """It sends a message now and then, and never rests, though its neighbours use up all that they share."""
    costs: Costs[str] = Costs()
    costs.enter("socket", LISTENER_BURST_S)
    bad = [f"bad {number}" for number in range(16)]
    for guest in ("good", *bad):
        costs.enter(guest, START_S, at="socket")
    for _ in range(1000):
        _used_s(costs, bad, 0.5, 0.001, 0.02)
        assert not costs.charge("good", 1e-4)


def test_many_honest_guests_of_a_socket_start_at_once() -> None:
    """Two hundred attach, which takes 2.5 ms of each, and go again one by one: none ever rests, nor does the socket."""
    costs: Costs[str] = Costs()
    costs.enter("socket", LISTENER_BURST_S)
    guests = [f"guest {number}" for number in range(200)]
    for guest in guests:
        costs.enter(guest, START_S, at="socket")
        assert not costs.must_rest("socket")
        assert not costs.charge(guest, 0.0025)
    for _ in range(600):
        costs.clock_s += 1.0
        assert not any(costs.charge(guest, 5e-5) for guest in guests)
    for guest in guests:
        costs.clock_s += 1.0
        costs.leave(guest)
        assert not costs.must_rest("socket")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[GoodAndBad]:
    """Two guests of one server, which runs when it is told to."""
    with closing(GoodAndBad(tmp_path, ("host", "host"))) as pair:
        yield pair


def _exhaust(pair: GoodAndBad) -> None:
    """Charge the bad guest with all that it may use, twice over."""
    while not pair.server._costs.is_resting(pair.bad_guest):
        pair.server._guests.charge(pair.bad_guest, CHARGE_MAX_S)


def _rest_for_long(pair: GoodAndBad) -> None:
    costs = pair.server._costs
    costs.rest_until(pair.bad_guest, costs.clock_s + LONG_S)


def _end_rest(pair: GoodAndBad) -> None:
    """Let the time pass."""
    costs = pair.server._costs
    costs.clock_s = costs.rests_until_s(pair.bad_guest)


def test_a_guest_that_rests_loses_nothing_and_its_neighbour_does_not_wait(pair: GoodAndBad) -> None:
    """Elements and messages of the rest are served after it; meanwhile another guest is served at once."""
    _exhaust(pair)
    _rest_for_long(pair)
    pair.bad.submit([(RING_PAGES, 1)])
    pair.serving(lambda: pair.good.report([(RING_PAGES, 1)]))
    assert pair.bad.ring.driver.take_used() == []
    assert not pair.bad_guest.has_work
    _end_rest(pair)
    pair.serving(lambda: (pair.bad.wait_used(), pair.bad.channel.call(Request.GET_FEATURES)))
    assert pair.bad_guest.ledger.snapshot()["verified_bytes"] == PAGE


def test_a_guest_may_go_while_it_rests(pair: GoodAndBad) -> None:
    """A guest that hangs up in its rest is let go after it."""
    _exhaust(pair)
    _rest_for_long(pair)
    pair.bad.channel.close()
    pair.server.run_once(0)
    assert pair.bad_guest in pair.server.guests
    _end_rest(pair)
    pair.server.run_once(0)
    assert pair.bad_guest not in pair.server.guests


def test_the_loop_wakes_for_the_end_of_a_rest(pair: GoodAndBad) -> None:
    """A loop with nothing else to do goes on with the guest when its rest is over, of itself."""
    _exhaust(pair)
    costs = pair.server._costs
    costs.clock_s = costs.rests_until_s(pair.bad_guest) - 0.05
    pair.bad.submit([(RING_PAGES, 1)])
    pair.serving(pair.bad.wait_used)
    assert not pair.server._costs.is_resting(pair.bad_guest)


def test_a_guest_with_nothing_left_is_served_after_its_rest(pair: GoodAndBad, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking into its empty socket, at 0.1 ms, does not send it to its next rest before its ring is looked at."""
    seconds = itertools.count(0.0, 1e-4)
    pair.server._guests.charge(pair.bad_guest, GUEST_BURST_S)
    pair.bad.submit([(RING_PAGES, 1)])
    monkeypatch.setattr(time, "thread_time", lambda: next(seconds))
    pair.serving(pair.bad.wait_used)


def test_reports_of_ones_own_memory_cost_nothing(pair: GoodAndBad) -> None:
    """A guest that reports what it has is not charged, and one that reports what it has not is."""
    spent_s = [pair.server._costs.spent_s(pair.bad_guest)]
    for page in (RING_PAGES, 1 << 30):
        pair.serving(lambda page=page: [pair.bad.report([(page, 4)]) for _ in range(100)])  # type: ignore[misc]
        spent_s.append(pair.server._costs.spent_s(pair.bad_guest))
    own_s, others_s = spent_s[1] - spent_s[0], spent_s[2] - spent_s[1]
    assert own_s < others_s / 4
    told = pair.bad_guest.ledger.snapshot()
    assert (told["reported_bytes"], told["skipped_out_of_range_bytes"]) == (800 * PAGE, 400 * PAGE)


def test_who_comes_back_comes_back_to_what_was_spent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Connections that are closed for nonsense use up their socket's allowance; then the next one waits."""
    monkeypatch.setattr(reception, "LISTENER_BURST_S", 0.02)
    with Server() as server:
        server.listen(tmp_path / "host")
        (guest_socket,) = server.sockets
        for _ in range(10_000):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "host"))
                sock.sendall(U64.pack(99) * 2)
                server.run_once(0)
                server.run_once(0)
            if server._costs.is_resting(guest_socket):
                break
        assert server._costs.is_resting(guest_socket)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "host"))
            server.run_once(0)
            assert server.guests == ()
            server._costs.clock_s = server._costs.rests_until_s(guest_socket)
            for _ in range(3):
                server.run_once(0)
            assert len(server.guests) == 1


def test_connections_of_one_socket_share_in_a_server(tmp_path: Path) -> None:
    """What guests that a server has accepted may use in vain is the same for one and for eight."""
    used_s = []
    for count in (1, 8):
        with Server() as server:
            server.listen(tmp_path / f"{count}")
            ends = [socket.socket(socket.AF_UNIX) for _ in range(count)]
            for end in ends:
                end.connect(str(tmp_path / f"{count}"))
                server.run_once(0)
            assert len(server.guests) == count
            costs = server._costs
            spent_s = 0.0
            for step in range(20_000):
                costs.clock_s += 0.02
                list(costs.take_rested())
                for guest in server.guests:
                    if not costs.is_resting(guest):
                        costs.charge(guest, 0.001)
                        spent_s += 0.001 * (step >= 10_000)
            used_s.append(spent_s)
            for end in ends:
                end.close()
    assert used_s[1] < 1.5 * used_s[0]
