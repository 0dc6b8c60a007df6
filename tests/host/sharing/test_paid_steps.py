"""Useful work pays for the steps around it: who fills or empties a balloon is never throttled, who floods is."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device.allowance import (
    CHARGE_MAX_S,
    GUEST_BURST_S,
    IN_VAIN,
    PAID_MAX_S,
    PAID_PAGES,
    PAID_S,
    SHARE,
    STEP,
    WANTED,
    Allowance,
    Use,
)
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.sharing.costs import Costs
from pagetide.virtio.balloon import Queue
from pagetide.virtio.vhost_user.messages import Message, Request, encode
from pagetide.virtio.vhost_user.payloads import ConfigSpace, MemoryRegion, encode_config, encode_single_region
from tests.host.daemon.test_fence import Rig
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, USER

pytestmark = pytest.mark.alone

STEPS = 1200
PAIRS = 5
_PFNS_PAGE = RING_PAGES
_FIRST_PAGE = RING_PAGES + 1

_USES = st.one_of(
    st.just(STEP),
    st.just(IN_VAIN),
    st.just(WANTED),
    st.integers(0, 2 * PAID_PAGES).map(lambda n: Use(0.0, pages=n)),
    st.integers(0, 20 * PAID_PAGES).map(lambda n: STEP._replace(earned_pages=n)),
)


@settings(deadline=None)
@given(st.lists(st.tuples(_USES, st.floats(0, CHARGE_MAX_S), st.floats(0, 1)), max_size=60))
def test_who_works_to_send_gets_a_share_a_burst_and_what_its_pages_earn(
    actions: list[tuple[Use, float, float]],
) -> None:
    """Who rests as told uses in vain no more than without work, and what its own pages earn."""
    costs: Costs[str] = Costs()
    costs.enter("guest", GUEST_BURST_S)
    in_vain_s = earned_s = 0.0
    for use, used_s, idle_s in actions:
        assert in_vain_s <= GUEST_BURST_S + SHARE * costs.clock_s + CHARGE_MAX_S + earned_s + 1e-9
        if costs.account("guest", use, used_s):
            costs.clock_s = costs._resting["guest"]
            assert list(costs.take_rested()) == ["guest"]
        in_vain_s += use.in_vain * used_s
        earned_s += PAID_S * (use.pages + use.earned_pages) / PAID_PAGES
        costs.clock_s += idle_s


def test_few_pages_earn_little_and_what_is_wrong_is_never_paid() -> None:
    """Earnings go by pages up to a bound, and pay for steps alone."""
    costs: Costs[str] = Costs()
    costs.enter("guest", GUEST_BURST_S)
    for use, steps_s, spent_s in (
        (Use(0.0, pages=1), 0.001, 0.001 - PAID_S / PAID_PAGES),
        (Use(0.0, pages=PAID_PAGES), 0.0003, 0.0),
        (Use(0.5, pages=0), 0.0002, 0.0005),  # the rest of what was earned before pays for the step
    ):
        before_s = costs.spent_s("guest")
        costs.account("guest", use, 0.001)
        costs.account("guest", STEP, steps_s)
        assert costs.spent_s("guest") - before_s == pytest.approx(spent_s)
    before_s = costs.spent_s("guest")
    costs.account("guest", Use(0.0, earned_pages=100 * PAID_PAGES), 1.0)
    costs.account("guest", IN_VAIN, 0.001)
    costs.account("guest", STEP, 0.02)
    assert costs.spent_s("guest") - before_s == pytest.approx(0.001 + 0.02 - PAID_MAX_S)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server that runs when it is told to."""
    with closing(Rig(tmp_path)) as rig:
        yield rig


def _attached(rig: Rig, queue: Queue) -> tuple[ServedGuest, AttachedGuest]:
    """A guest with this queue, and the server's side of it, with nothing spent."""
    sock = rig.connect("bad")
    guest = rig.serving(lambda: ServedGuest(sock, queue=queue))
    attached = rig.server.guests[-1]
    words = guest.ring.ram.words.view("u4")
    at = _PFNS_PAGE * PAGE // 4
    words[at : at + 256] = np.arange(256) + GPA // PAGE + _FIRST_PAGE
    return guest, attached


def _name_pages(guest: ServedGuest, pages: int = 256) -> None:
    guest.put([(GPA + _PFNS_PAGE * PAGE, 4 * pages)], writable=False)


def _as_linux_does(guest: ServedGuest) -> None:
    """Fill or empty a balloon: read, name 256 pages, write (virtio_balloon.c, update_balloon_size_func)."""
    end_s = time.monotonic() + TIMEOUT_S
    for _ in range(STEPS):
        _step(guest)
        assert time.monotonic() < end_s, "throttled"


def _step(guest: ServedGuest) -> None:
    guest.channel.get_config(0, 4)
    _name_pages(guest)
    guest.channel.set_config(4, (256).to_bytes(4, "little"))


def _took_s(rig: Rig, action: Callable[[], None]) -> float:
    start_s = time.monotonic()
    rig.serving(action)
    return time.monotonic() - start_s


@pytest.mark.parametrize("queue", [Queue.INFLATE, Queue.DEFLATE])
def test_an_honest_balloon_is_not_throttled(rig: Rig, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling and emptying take as long as where nobody ever rests, by turns, and few of the steps are not paid for."""
    guest, attached = _attached(rig, queue)
    with guest:
        _took_s(rig, lambda: _as_linux_does(guest))  # warm
        ratios, spent_s = [], 0.0
        for _ in range(PAIRS):
            with monkeypatch.context() as patch:
                patch.setattr(Allowance, "rest_s", lambda *_: 0.0)
                free_s = _took_s(rig, lambda: _as_linux_does(guest))
            before_s = rig.server._costs.spent_s(attached)
            ratios.append(_took_s(rig, lambda: _as_linux_does(guest)) / free_s)
            spent_s += rig.server._costs.spent_s(attached) - before_s
        assert statistics.median(ratios) < 1.3
        assert spent_s < PAIRS * GUEST_BURST_S / 2


def _spend(rig: Rig, attached: AttachedGuest, step: Callable[[], None]) -> bool:
    """Whether doing this again and again uses the allowance up, within what honest drivers do freely."""
    for _ in range(STEPS):
        rig.serving(step)
        if rig.server._costs.spent_s(attached) > GUEST_BURST_S:
            return True
    return False


def test_without_what_is_earned_it_would_be(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test can fail: where pages earn nothing, the same steps use the allowance up."""
    monkeypatch.setattr(Allowance, "earn", lambda *_: None)
    guest, attached = _attached(rig, Queue.DEFLATE)
    with guest:
        assert _spend(rig, attached, lambda: _step(guest))


@pytest.mark.parametrize("pages", [0, 1])
def test_a_flood_of_reads_is_charged_with_a_trickle_of_pages_or_without(rig: Rig, pages: int) -> None:
    """Who reads the configuration 32 times for each page named uses its allowance up."""
    guest, attached = _attached(rig, Queue.DEFLATE)

    def flood() -> None:
        for _ in range(32):
            guest.channel.get_config(0, 4)
        if pages:
            _name_pages(guest, pages)

    with guest:
        assert _spend(rig, attached, flood)


def test_messages_by_the_dozen_are_charged_whatever_was_earned(rig: Rig) -> None:
    """Messages that come many at a time, as no driver sends them that waits for answers, are never paid for."""
    guest, attached = _attached(rig, Queue.INFLATE)
    message = encode(Message(Request.GET_CONFIG, 0, encode_config(ConfigSpace(0, 4, 0, bytes(4)))))

    def flood() -> None:
        _name_pages(guest)
        sock = guest.channel._connection._socket
        sock.setblocking(True)
        sock.sendall(message * 16)
        left = 16 * len(message)
        while left:
            left -= len(sock.recv(left))

    with guest:
        assert _spend(rig, attached, flood)


def test_a_start_and_many_hot_plugs_leave_most_of_the_burst(rig: Rig) -> None:
    """Negotiation, memory, a queue, and memory added piece by piece up to the last slot."""
    guest, attached = _attached(rig, Queue.REPORTING)
    with guest:

        def plug() -> None:
            for number in range(1, 31):
                region = MemoryRegion(GPA + (number << 32), 16 * PAGE, USER + (number << 32), 0)
                guest.channel.call(Request.ADD_MEM_REG, encode_single_region(region), (guest.ring.ram.fd,))

        rig.serving(plug)
        assert rig.server._costs.spent_s(attached) < GUEST_BURST_S / 2


def test_statistics_that_were_asked_for_are_not_in_vain(rig: Rig) -> None:
    """Asked again and again, a guest spends next to nothing on its answers; one that was not asked pays for them."""
    guest, attached = _attached(rig, Queue.STATS)
    with guest:

        def answer() -> None:
            guest.ring.add([(_FIRST_PAGE, 1)], writable=False)
            guest.ring.driver.publish()

        spent_s = []
        for ask in (True, False):
            before_s = rig.server._costs.spent_s(attached)
            for _ in range(200):
                answer()
                attached._kicks.make_ready(guest.index)
                rig.server.run_once(0)
                if ask:
                    rig.server.request_statistics()
                guest.ring.driver.take_used()
            spent_s.append(rig.server._costs.spent_s(attached) - before_s)
        assert spent_s[0] < spent_s[1] / 4
