"""Where a queue begins: at the used index in guest memory, whatever index the front-end says (Cloud Hypervisor's)."""

import os
from collections.abc import Iterator

import pytest

from pagetide.host.device.balloon import FEATURES, BalloonDevice
from pagetide.host.memory.ledger import Ledger
from pagetide.virtio.balloon import STAT, Feature, Queue
from pagetide.virtio.split_ring.ring import RING_IDX
from tests.host.device.queue_rig import QueueRig
from tests.host.guest_ring import RING_PAGES

UNPOISONED = int(FEATURES & ~Feature.PAGE_POISON)


@pytest.fixture
def rig() -> Iterator[QueueRig]:
    """A guest with a reporting queue, and its device."""
    with QueueRig(Queue.REPORTING, features=UNPOISONED) as rig:
        yield rig


def restart_at(rig: QueueRig, base: int, features: int = UNPOISONED) -> None:
    """Serve the queue with a device that knows nothing of an earlier one."""
    rig.device = BalloonDevice(rig.memory, Ledger())
    rig.device.start_queue(rig.index, rig.guest.queue_place, base, features)


def poke_used_idx(rig: QueueRig, value: int) -> None:
    """Write the used ring's index, as only a device should."""
    offset = rig.guest.place.used_gpa - rig.guest.region.gpa + RING_IDX
    os.pwrite(rig.guest.ram.fd, value.to_bytes(2, "little"), offset)


@pytest.mark.parametrize("served", [0, 3])
@pytest.mark.parametrize("base_after", [0, 1, 2])
def test_what_was_not_given_back_is_served_wherever_the_queue_is_said_to_stand(
    rig: QueueRig, served: int, base_after: int
) -> None:
    """At the used index, at the available index, or between them: both reports that wait are discarded, once each."""
    for page in range(served):
        rig.guest.add([(RING_PAGES + 100 + page, 1)])
    rig.guest.driver.publish()
    rig.process()
    assert rig.used() == served
    for page in (20, 30):
        rig.guest.add([(RING_PAGES + page, 1)])
    rig.guest.driver.publish()
    restart_at(rig, served + base_after)
    rig.process()
    assert rig.used() == 2
    assert rig.word("discarded_bytes") == 2 * 4096
    assert rig.device.queues.stop(rig.index) == served + 2


def test_indices_may_wrap_between_the_two(rig: QueueRig) -> None:
    """65536 elements later it is the same."""
    for _ in range(65534 // 32):
        for _ in range(32):
            rig.guest.add([(RING_PAGES + 20, 1)])
        rig.guest.driver.publish()
        rig.process(32)
        rig.used()
    for _ in range(40):
        rig.guest.add([(RING_PAGES + 20, 1)])
    rig.guest.driver.publish()
    restart_at(rig, (65534 // 32 * 32 + 40) & 0xFFFF)
    rig.process(64)
    assert rig.used() == 40


def test_a_used_idx_that_does_not_fit_is_refused_or_served_within_the_queue(rig: QueueRig) -> None:
    """The guest may write anything there: never more elements than the queue has, never a loop."""
    rig.guest.add([(RING_PAGES + 20, 1)])
    rig.guest.driver.publish()
    for used in (2, 100, 65535 - 64, 32768):
        poke_used_idx(rig, used)
        with pytest.raises(ValueError, match="base 1 does not fit"):
            restart_at(rig, 1)
    poke_used_idx(rig, (1 - 64) & 0xFFFF)
    restart_at(rig, 1)
    turns = 0
    while rig.device.process(rig.index, 16).more:
        turns += 1
        assert turns <= 64


def test_a_statistics_buffer_from_before_the_queue_is_taken() -> None:
    """Linux puts it in before DRIVER_OK; a front-end that begins after it still gets its guest's figures."""
    with QueueRig(Queue.STATS) as rig:
        rig.put(STAT.pack(4, 12345))
        restart_at(rig, 1)
        rig.process()
        assert rig.device.statistics != {}
        assert rig.device.queues.stop(rig.index) == 0


def test_a_first_start_behind_elements_is_not_taken_for_a_takeover(rig: QueueRig) -> None:
    """Nothing was ever given back: no device was there before, so the driver's pages are not taken for poisoned."""
    rig.guest.add([(RING_PAGES + 20, 1)])
    rig.guest.driver.publish()
    restart_at(rig, 1, int(FEATURES))
    rig.process()
    assert rig.word("skipped_poisoned_bytes") == 0
    assert rig.word("discarded_bytes") == 4096
