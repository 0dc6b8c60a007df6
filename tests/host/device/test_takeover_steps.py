"""A successor goes on, wherever its predecessor was abandoned: nothing is lost, answered twice or discarded late."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.atomics import load_u16
from pagetide.host.device.balloon import FEATURES
from pagetide.host.device.queues import block_queue, element, turn
from pagetide.jit import JIT_DISABLED
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring import device as ring_device
from pagetide.virtio.split_ring import inflight
from pagetide.virtio.split_ring.ring import RING_IDX, USED_ENTRY_BYTES, RingError
from tests.host.device.abandoned_device import Steps, Takeovers, store
from tests.host.guest_ring import PAGE, RING_PAGES

pytestmark = pytest.mark.skipif(not JIT_DISABLED, reason="stores can be counted with NUMBA_DISABLE_JIT=1 only")

REPORTING = queues(FEATURES).index(Queue.REPORTING)
WITHOUT_EVENT_IDX = int(FEATURES & ~Feature.EVENT_IDX)
FREE = [*range(RING_PAGES, 64, 2), *range(RING_PAGES + 1, 64, 2)]
"""Pages that follow each other here do not adjoin."""


class ViolatedError(Exception):
    """What must hold does not."""


class Guest:
    """A guest that reports blocks of a page, so many an element, and writes to them as soon as the element is back."""

    def __init__(self, steps: Steps, features: int, *, blocks: int = 1, turn_punches_max: int = 64) -> None:
        self.takeovers = Takeovers(steps, REPORTING, features, turn_punches_max=turn_punches_max)
        self.blocks = blocks
        self.free = list(FREE)
        self.out: dict[int, list[int]] = {}
        self.in_use: dict[int, int] = {}
        self.written = 0
        self.answers = 0

    def submit(self) -> None:
        """Report the pages that have been free for longest."""
        if len(self.free) < self.blocks:
            return
        pages, self.free = self.free[: self.blocks], self.free[self.blocks :]
        for page in pages:
            self.in_use.pop(page, None)
        ring = self.takeovers.guest
        gpas = ring.region.gpa + np.array(pages) * PAGE
        head = ring.driver.add_element(gpas, np.full(self.blocks, PAGE), writable=True)
        assert head is not None
        ring.driver.publish()
        self.out[head] = pages

    def take(self) -> None:
        """Take what is back: each page of it must be gone; it is written to, and must stay as it is."""
        ring = self.takeovers.guest
        try:
            heads = ring.driver.take_used()
        except RingError as error:
            raise ViolatedError(f"answered twice: {error}") from error
        resident = ring.resident_pages()
        for head, _ in heads:
            self.answers += 1
            for page in self.out.pop(head):
                if page in resident:
                    raise ViolatedError("acknowledged and not discarded")
                self.written += 1
                ring.ram.words[page * PAGE // 8] = self.written
                self.in_use[page] = self.written
                self.free.append(page)

    def check(self) -> None:
        """No page in use has lost what was written to it."""
        for page, written in self.in_use.items():
            if self.takeovers.guest.ram.words[page * PAGE // 8] != written:
                raise ViolatedError("discarded after it was acknowledged")

    def finish(self) -> None:
        """Serve until everything is back."""
        for _ in range(20 * self.blocks):
            self.takeovers.turn(16)
            self.take()
            self.check()
        if self.out:
            raise ViolatedError("an element was lost")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """Stores that are counted."""
    with monkeypatch.context() as patch:
        yield Steps(patch)


def _abandon(
    guests: Callable[[], Guest],
    seconds: Iterable[int | None],
    play: Callable[[Guest, int, int | None], bool],
    answers: int,
) -> int:
    """Abandon a turn at every step, and its successor's at some; at how many places.

    Args:
        guests: makes a guest.
        seconds: the steps of the successor; None lets it live.
        play: has a turn and its successor's die at these steps; whether the first died.
        answers: how many elements are given back in all.
    """
    places = 0
    for second in seconds:
        for first in range(200):
            guest = guests()
            try:
                died = play(guest, first, second)
                guest.submit()
                guest.finish()
                assert guest.answers == answers
            finally:
                guest.takeovers.close()
            if not died:
                break
            places += 1
        else:
            pytest.fail("a turn has no end")
    return places


def abandon_once_everywhere(steps: Steps, features: int = WITHOUT_EVENT_IDX) -> int:
    """Abandon a turn of two elements at every step, and its successor at every third; at how many places."""

    def play(guest: Guest, first: int, second: int | None) -> bool:
        guest.submit()
        guest.takeovers.turn(4)
        guest.take()
        for _ in range(3):
            guest.submit()
        guest.takeovers.turn(2, first)
        died = guest.takeovers.deaths == 1
        guest.take()
        guest.check()
        guest.submit()
        guest.takeovers.turn(2, second)
        guest.take()
        return died

    return _abandon(lambda: Guest(steps, features), (None, *range(0, 60, 3)), play, 6)


def test_a_successor_goes_on_wherever_its_predecessor_was_abandoned(steps: Steps) -> None:
    """Every step of a turn of two elements is a place to die at, and so is every third of the successor's."""
    assert abandon_once_everywhere(steps) > 18 * 21


def _flags_first(state: np.ndarray) -> int:
    """The flags are cleared before the ring's idx says so."""
    new, old = int(state[ring_device.USED_NEXT]), int(state[ring_device.USED_PUBLISHED])
    if new != old:
        region, descs = int(state[ring_device.INFLIGHT_ADDRESS]), int(state[ring_device.INFLIGHT_DESCS])
        inflight.note_published(region, descs, new - old, new)
        store("store_u16_release", int(state[ring_device.USED_ADDRESS]) + RING_IDX, new)
        state[ring_device.USED_PUBLISHED] = new
    return 1


def _used_idx_first(region: int, descs: int, count: int, used_idx: int) -> int:
    """used_idx says that the batch is settled before it is."""
    store("store_u16_release", region + inflight.REGION_USED_IDX, used_idx)
    head = load_u16(region + inflight.REGION_LAST_BATCH_HEAD)
    for _ in range(count):
        state = region + inflight.REGION_HEAD_BYTES + head * inflight.STATE_BYTES
        store("store_u16_release", state + inflight.STATE_INFLIGHT, 0)
        head = load_u16(state + inflight.STATE_NEXT)
    return 0


def _no_list(region: int, head: int) -> None:
    """The batch is not kept in a list."""


def _only_the_head(region: int, head: int) -> None:
    """The list's head moves, and the element does not point to the rest."""
    store("store_u16_release", region + inflight.REGION_LAST_BATCH_HEAD, head)


def _never_settled(region: int, descs: int, count: int, used_idx: int) -> int:
    """The flags are left as they are."""
    store("store_u16_release", region + inflight.REGION_USED_IDX, used_idx)
    return 0


def _idx_first(state: np.ndarray, head: int, length_bytes: int) -> int:
    """The ring's idx moves before its entry is there."""
    used = int(state[ring_device.USED_NEXT])
    state[ring_device.USED_NEXT] = used + 1 & 0xFFFF
    ring_device.publish_used(state)
    entry = int(state[ring_device.USED_ADDRESS]) + 4 + (used & int(state[ring_device.SIZE]) - 1) * USED_ENTRY_BYTES
    store("store_u32", entry, head)
    store("store_u32", entry + 4, length_bytes)
    return 0


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        ("pagetide.host.device.queues.turn", "publish_used", _flags_first),
        ("pagetide.virtio.split_ring.device", "note_published", _used_idx_first),
        ("pagetide.virtio.split_ring.device", "note_published", _never_settled),
        ("pagetide.virtio.split_ring.device", "note_given_back", _no_list),
        ("pagetide.virtio.split_ring.device", "note_given_back", _only_the_head),
        ("pagetide.host.device.queues.joined", "push_used", _idx_first),
    ],
)
def test_a_broken_order_of_stores_is_caught(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, where: str, name: str, broken: Callable[..., object]
) -> None:
    """Each wrong order breaks the promise at some step, or is found out by the successor: the check above can fail."""
    monkeypatch.setattr(f"{where}.{name}", broken)
    with pytest.raises((ViolatedError, AssertionError, ValueError, KeyError)):
        abandon_once_everywhere(steps)


def abandon_within_elements(steps: Steps, features: int, blocks: int = 4) -> int:
    """Elements of several turns each, abandoned at every step of the first two, and at some of the successor's."""

    def play(guest: Guest, first: int, second: int | None) -> bool:
        for _ in range(3):
            guest.submit()
        guest.takeovers.turn(2, first, turns=2 * blocks)
        died = guest.takeovers.deaths == 1
        guest.take()
        guest.check()
        guest.takeovers.turn(2, second, turns=blocks)
        guest.take()
        guest.check()
        return died

    return _abandon(
        lambda: Guest(steps, features, blocks=blocks, turn_punches_max=1), (None, *range(0, 40, 10)), play, 4
    )


@pytest.mark.parametrize("features", [WITHOUT_EVENT_IDX, int(FEATURES & ~Feature.INDIRECT_DESC)])
def test_a_successor_goes_on_within_an_element_of_many_turns(steps: Steps, features: int) -> None:
    """A turn for each block of an element, killed at every step: it is back when all of it is gone, and once."""
    assert abandon_within_elements(steps, features) > 20 * 5


def _acknowledged_first(patch: pytest.MonkeyPatch) -> None:
    """The element is given back as it is begun, and dealt with after."""
    begin = element.begin_element

    def early(queue: int, ring: np.ndarray, *rest: Any) -> None:
        begin(queue, ring, *rest)
        ring_device.push_used(ring, int(ring[ring_device.POPPED_HEAD]), 0)
        ring_device.publish_used(ring)

    patch.setattr(turn, "begin_element", early)
    patch.setattr(turn, "push_used", lambda *_: 0)


def _acknowledged_with_the_first_piece(patch: pytest.MonkeyPatch) -> None:
    """What does not fit into the turn is given back as if it had."""
    go_on = element.go_on

    def early(regions: np.ndarray, ranges: np.ndarray, progress: np.ndarray, *rest: Any) -> int:
        failure = go_on(regions, ranges, progress, *rest)
        progress[element.NEXT_RANGE] = progress[element.RANGE_COUNT]
        return failure

    patch.setattr(turn, "go_on", early)


def _begun_again_with_the_next(patch: pytest.MonkeyPatch) -> None:
    """A turn that begins amid an element forgets it and takes the next."""
    take_turn: Callable[..., int] = turn.take_turn

    def forgetful(queue: int, ring: np.ndarray, *rest: Any) -> int:
        ring[ring_device.UNDER_WAY] = 0
        return take_turn(queue, ring, *rest)

    patch.setattr(block_queue, "take_turn", forgetful)


@pytest.mark.parametrize(
    "broken", [_acknowledged_first, _acknowledged_with_the_first_piece, _begun_again_with_the_next]
)
def test_a_device_that_loses_pieces_is_caught(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """An element that is given back before it is done, or never, breaks the promise at some step."""
    broken(monkeypatch)
    with pytest.raises(ViolatedError):
        abandon_within_elements(steps, WITHOUT_EVENT_IDX)


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.just("submit"),
            st.just("take"),
            st.just("stop"),
            st.tuples(st.integers(1, 5), st.one_of(st.none(), st.integers(0, 40))),
        ),
        max_size=60,
    ),
    st.sampled_from([int(FEATURES), WITHOUT_EVENT_IDX]),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_any_history_of_deaths_loses_nothing(
    history: list[str | tuple[int, int | None]], features: int, blocks: int, turn_punches_max: int
) -> None:
    """Reports, turns, orderly stops and deaths in any order: each element is answered once, its page gone then."""
    with pytest.MonkeyPatch.context() as patch:
        guest = Guest(Steps(patch), features, blocks=blocks, turn_punches_max=turn_punches_max)
        submitted = 0
        try:
            for what in history:
                if what == "submit":
                    submitted += len(guest.free) >= blocks
                    guest.submit()
                elif what == "take":
                    guest.take()
                elif what == "stop":
                    guest.takeovers.stop()
                else:
                    assert isinstance(what, tuple)
                    guest.takeovers.turn(*what)
                guest.check()
            guest.finish()
            assert guest.answers == submitted
        finally:
            guest.takeovers.close()
