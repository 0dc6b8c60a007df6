"""Both halves of the split virtqueue joined, against a model of three first-in first-out queues."""

from typing import NamedTuple

import numpy as np
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagetide.virtio.split_ring.device import push_used
from pagetide.virtio.split_ring.ring import BAD_PUSH
from tests.virtio.split_ring.ring_pair import RingPair, column, make_pair

U32 = st.integers(0, 2**32 - 1)
BUFFERS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**28 - 1)), min_size=1, max_size=16)


class Sent(NamedTuple):
    """What the driver sent as one element."""

    head: int
    buffers: list[tuple[int, int, bool]]
    descs: int


class Notifications:
    """When one half must notify the other, counted from the start without wrapping."""

    def __init__(self, event_idx: bool) -> None:
        self.event_idx = event_idx
        self.published = 0
        self.armed_for = 0
        self.wanted = True
        self.asleep = False

    def publish(self, count: int) -> bool:
        """Whether publishing this many entries notifies; wakes the sleeper."""
        old, self.published = self.published, self.published + count
        notify = old <= self.armed_for < self.published if self.event_idx else self.wanted and count > 0
        assert notify or count == 0 or not self.asleep, "the model itself lost a notification"
        self.asleep = self.asleep and not notify
        return notify

    def arm(self, seen: int) -> bool:
        """Ask for a notification of the next entry; whether entries are already there."""
        self.armed_for, self.wanted = seen, True
        self.asleep = seen == self.published
        return not self.asleep


class TwoHalves(RuleBasedStateMachine):
    """Any order of calls on the two halves."""

    pair: RingPair

    @initialize(
        size=st.sampled_from([1, 2, 4, 8, 16]),
        event_idx=st.booleans(),
        tables=st.booleans(),
        start=st.one_of(st.just(0), st.integers(65530, 65535)),
    )
    def start(self, size: int, event_idx: bool, tables: bool, start: int) -> None:
        """An empty queue, fresh or about to wrap."""
        self.size, self.tables = size, tables
        self.pair = make_pair(size, event_idx=event_idx, table_descs=size if tables else 0, start=start)
        self.start_index = start
        self.kicks, self.calls = Notifications(event_idx), Notifications(event_idx)
        self.added: list[Sent] = []
        self.available: list[Sent] = []
        self.popped: list[Sent] = []
        self.pushed: list[tuple[Sent, int]] = []
        self.used: list[tuple[Sent, int]] = []
        self.count_popped = self.count_taken = 0

    def outstanding(self) -> list[Sent]:
        """Every element whose descriptors the driver cannot reuse."""
        return [*self.added, *self.available, *self.popped, *(sent for sent, _ in self.pushed + self.used)]

    @rule(buffers=BUFFERS, writable=st.booleans())
    def add(self, buffers: list[tuple[int, int]], writable: bool) -> None:
        """An element is added exactly if there are descriptors for it, under a head of its own."""
        assume(len(buffers) <= self.size)
        descs = 1 if self.tables else len(buffers)
        free = self.pair.driver.free_descs
        gpas, lengths = np.array(buffers, np.int64).T
        head = self.pair.driver.add_element(gpas, lengths, writable=writable)
        assert (head is not None) == (descs <= free)
        if head is not None:
            assert head not in [sent.head for sent in self.outstanding()]
            self.added.append(Sent(head, [(gpa, length, writable) for gpa, length in buffers], descs))

    @rule()
    def publish(self) -> None:
        """The device is kicked exactly when it asked to be."""
        assert self.pair.driver.publish() == self.kicks.publish(len(self.added))
        self.available += self.added
        self.added = []

    @precondition(lambda self: not self.kicks.asleep)
    @rule()
    def pop(self) -> None:
        """Elements come out whole and in the order of publication."""
        element = self.pair.device.pop(self.pair.memory.regions)
        assert (element is None) == (not self.available)
        if element is not None:
            sent = self.available.pop(0)
            assert (element.head, element.buffers) == (sent.head, sent.buffers)
            self.popped.append(sent)
            self.count_popped += 1

    @precondition(lambda self: self.popped)
    @rule(which=st.integers(0, 15), length=U32)
    def push(self, which: int, length: int) -> None:
        """Elements are given back in any order."""
        sent = self.popped.pop(which % len(self.popped))
        self.pair.device.push(sent.head, length)
        self.pushed.append((sent, length))

    @precondition(lambda self: not self.popped)
    @rule()
    def push_nothing(self) -> None:
        """What was not popped, or was given back already, cannot be given back."""
        assert push_used(self.pair.device.state, 0, 0) == BAD_PUSH

    @rule()
    def publish_used(self) -> None:
        """The driver is called exactly when it asked to be."""
        assert self.pair.device.publish() == self.calls.publish(len(self.pushed))
        self.used += self.pushed
        self.pushed = []

    @precondition(lambda self: not self.calls.asleep)
    @rule()
    def take(self) -> None:
        """Used elements arrive in the order they were given back, with their lengths."""
        assert self.pair.driver.take_used() == [(sent.head, length) for sent, length in self.used]
        self.count_taken += len(self.used)
        self.used = []

    @rule()
    def device_arms(self) -> None:
        """The device may sleep exactly if nothing is there."""
        assert self.pair.device.arm_kick() == self.kicks.arm(self.count_popped)

    @rule()
    def driver_arms(self) -> None:
        """The driver may sleep exactly if nothing is there."""
        assert self.pair.driver.arm_call() == self.calls.arm(self.count_taken)

    @precondition(lambda self: not self.kicks.asleep)
    @rule()
    def device_disarms(self) -> None:
        """An awake device may do without kicks."""
        self.pair.device.disarm_kick()
        self.kicks.wanted = False

    @precondition(lambda self: not self.calls.asleep)
    @rule()
    def driver_disarms(self) -> None:
        """An awake driver may do without calls."""
        self.pair.driver.disarm_call()
        self.calls.wanted = False

    @rule(length=U32)
    def round_trips(self, length: int) -> None:
        """Everything goes round: added, popped, given back, taken."""
        self.device_arms()
        self.driver_arms()
        self.add([(length, 0)], True)
        self.publish()
        while self.available:
            self.kicks.asleep = False
            self.pop()
        while self.popped:
            self.push(length, length)
        self.publish_used()
        self.calls.asleep = False
        self.take()
        assert self.pair.driver.free_descs == self.size

    @invariant()
    def free_descriptors_are_those_not_outstanding(self) -> None:
        """No descriptor is lost or used twice."""
        if hasattr(self, "pair"):
            assert self.pair.driver.free_descs == self.size - sum(sent.descs for sent in self.outstanding())

    @invariant()
    def last_avail_counts_what_was_popped(self) -> None:
        """GET_VRING_BASE would answer right at any time."""
        if hasattr(self, "pair"):
            assert self.pair.device.last_avail == (self.start_index + self.count_popped) % 65536


TwoHalves.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestTwoHalves = TwoHalves.TestCase


def test_a_queue_of_one_goes_round() -> None:
    """The smallest queue works, one element at a time."""
    pair = make_pair(1, event_idx=True)
    for i in range(5):
        assert pair.driver.add_element(column(i), column(1), writable=True) == 0
        assert pair.driver.add_element(column(i), column(1), writable=True) is None
        pair.driver.publish()
        element = pair.device.pop(pair.memory.regions)
        assert element == (0, [(i, 1, True)])
        pair.device.push(0, i)
        pair.device.publish()
        assert pair.driver.take_used() == [(0, i)]
