"""A successor goes on, wherever its predecessor was abandoned: nothing is lost, answered twice or discarded late."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.atomics import load_u16
from pagetide.host.device.balloon import FEATURES
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
FREE = list(range(RING_PAGES, 64))


class ViolatedError(Exception):
    """What must hold does not."""


class Guest:
    """A guest that reports a page an element, and writes to it again as soon as the element is back."""

    def __init__(self, steps: Steps, features: int) -> None:
        self.takeovers = Takeovers(steps, REPORTING, features)
        self.free = list(FREE)
        self.out: dict[int, int] = {}
        self.in_use: dict[int, int] = {}
        self.written = 0
        self.answers = 0

    def submit(self) -> None:
        """Report the page that has been free for longest."""
        if not self.free:
            return
        page = self.free.pop(0)
        self.in_use.pop(page, None)
        ring = self.takeovers.guest
        head = ring.driver.add_element(np.array([ring.region.gpa + page * PAGE]), np.array([PAGE]), writable=True)
        assert head is not None
        ring.driver.publish()
        self.out[head] = page

    def take(self) -> None:
        """Take what is back: each page must be gone; it is written to, and must stay as it is."""
        ring = self.takeovers.guest
        try:
            heads = ring.driver.take_used()
        except RingError as error:
            raise ViolatedError(f"answered twice: {error}") from error
        resident = ring.resident_pages()
        for head, _ in heads:
            page = self.out.pop(head)
            self.answers += 1
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
        for _ in range(20):
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


def abandon_once_everywhere(steps: Steps, features: int = WITHOUT_EVENT_IDX) -> int:
    """Abandon a turn of two elements at every step, and its successor at every third; at how many places."""
    places = 0
    for second in (None, *range(0, 60, 3)):
        for first in range(200):
            guest = Guest(steps, features)
            try:
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
                guest.submit()
                guest.finish()
                assert guest.answers == 6
            finally:
                guest.takeovers.close()
            if not died:
                break
            places += 1
        else:
            pytest.fail("a turn has no end")
    return places


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
        ("pagetide.host.device.turn", "publish_used", _flags_first),
        ("pagetide.virtio.split_ring.device", "note_published", _used_idx_first),
        ("pagetide.virtio.split_ring.device", "note_published", _never_settled),
        ("pagetide.virtio.split_ring.device", "note_given_back", _no_list),
        ("pagetide.virtio.split_ring.device", "note_given_back", _only_the_head),
        ("pagetide.host.device.turn", "push_used", _idx_first),
    ],
)
def test_a_broken_order_of_stores_is_caught(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, where: str, name: str, broken: Callable[..., object]
) -> None:
    """Each wrong order breaks the promise at some step, or is found out by the successor: the check above can fail."""
    monkeypatch.setattr(f"{where}.{name}", broken)
    with pytest.raises((ViolatedError, AssertionError, ValueError, KeyError)):
        abandon_once_everywhere(steps)


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
)
def test_any_history_of_deaths_loses_nothing(history: list[str | tuple[int, int | None]], features: int) -> None:
    """Reports, turns, orderly stops and deaths in any order: each element is answered once, its page gone then."""
    with pytest.MonkeyPatch.context() as patch:
        guest = Guest(Steps(patch), features)
        submitted = 0
        try:
            for what in history:
                if what == "submit":
                    submitted += bool(guest.free)
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
