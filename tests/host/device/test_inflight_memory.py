"""The memory in which what is in flight is tracked: made, mapped, left in order, and refused when it is not ours."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES, QUEUES_MAX
from pagetide.host.device.inflight_memory import InflightMemory, create_inflight
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.virtio.balloon import Queue, queues
from pagetide.virtio.split_ring.inflight import (
    REGION_DESC_NUM,
    REGION_HEAD_BYTES,
    REGION_LAST_BATCH_HEAD,
    REGION_USED_IDX,
    REGION_VERSION,
    STATE_BYTES,
    STATE_COUNTER,
    region_bytes,
)
from pagetide.virtio.vhost_user.messages import RemoteProtocolError
from pagetide.virtio.vhost_user.payloads import Inflight
from pagetide.virtio.vhost_user.transport import FrontendChannel
from tests.host.device.queue_rig import QueueRig
from tests.host.guest.served_guest import TIMEOUT_S
from tests.host.guest_ring import PAGE, RING_PAGES, SIZE

REPORTING = queues(FEATURES).index(Queue.REPORTING)


class TrackedRig(QueueRig):
    """A reporting queue that is tracked."""

    def __init__(self, size: int = SIZE, kind: Queue = Queue.REPORTING) -> None:
        super().__init__(kind)
        self.device.queues.stop(self.index)
        self.description, self.fd = create_inflight(QUEUES_MAX, size, QUEUES_MAX)
        self.inflight = InflightMemory(self.description, os.dup(self.fd), QUEUES_MAX)

    def start(self, base: int = 0) -> None:
        """Start the queue."""
        region = self.inflight.region(self.index)
        self.device.start_queue(self.index, self.guest.queue_place, base, self._features, region)

    def abandon(self) -> None:
        """The device is no more, and nothing was stopped."""
        self.device.queues._started.clear()

    def word(self, place: int, size_bytes: int = 2) -> int:  # type: ignore[override]
        """A field of the queue's region."""
        at = self.index * region_bytes(self.description.queue_size) + place
        return int.from_bytes(os.pread(self.fd, size_bytes, at), "little")

    def set_word(self, place: int, value: int, size_bytes: int = 2) -> None:
        """Change a field of the queue's region."""
        at = self.index * region_bytes(self.description.queue_size) + place
        os.pwrite(self.fd, value.to_bytes(size_bytes, "little"), at)

    def report(self, page: int) -> None:
        """Publish a report of one page."""
        self.guest.add([(page, 1)])
        self.guest.driver.publish()

    def close(self) -> None:
        """Give everything back."""
        self.inflight.close()
        os.close(self.fd)
        self.memory.close()
        self.guest.ram.close()


@pytest.fixture
def rig() -> Iterator[TrackedRig]:
    """A tracked reporting queue that is not started yet."""
    with closing(TrackedRig()) as rig:
        yield rig


def test_a_region_says_what_the_text_says(rig: TrackedRig) -> None:
    """Version, number of descriptors and used index are there; a batch's flags are cleared and its list is kept."""
    rig.start()
    assert (rig.word(REGION_VERSION), rig.word(REGION_DESC_NUM), rig.word(0, 8)) == (1, SIZE, 0)
    for page in range(3):
        rig.report(RING_PAGES + page)
    rig.process()
    heads = [head for head, _ in rig.guest.driver.take_used()]
    assert rig.word(REGION_USED_IDX) == 3
    assert rig.word(REGION_LAST_BATCH_HEAD) == heads[-1]
    for counter, head in enumerate(heads):
        assert rig.word(REGION_HEAD_BYTES + STATE_BYTES * head, 1) == 0
        assert rig.word(REGION_HEAD_BYTES + STATE_BYTES * head + STATE_COUNTER, 8) == counter
    rig.device.queues.stop(rig.index)
    assert rig.word(REGION_VERSION) == 0


def test_elements_are_resubmitted_in_the_order_of_their_counters(rig: TrackedRig) -> None:
    """What a predecessor left out of order is answered first and by counter; then the rest of the ring."""
    rig.start()
    for page in range(4):
        rig.report(RING_PAGES + page)
    rig.abandon()
    heads = [0, 1, 2, 3]
    assert rig.guest.driver.free_descs == SIZE - 4
    for head, counter in ((2, 5), (0, 9), (1, 7)):
        rig.set_word(REGION_HEAD_BYTES + STATE_BYTES * head, 1, 1)
        rig.set_word(REGION_HEAD_BYTES + STATE_BYTES * head + STATE_COUNTER, counter, 8)
    rig.start(base=77)
    rig.process(budget=2)
    assert [head for head, _ in rig.guest.driver.take_used()] == [2, 1]
    rig.process()
    assert [head for head, _ in rig.guest.driver.take_used()] == [0, 3]
    assert rig.word(REGION_HEAD_BYTES + STATE_BYTES * heads[3] + STATE_COUNTER, 8) == 10
    assert rig.guest.resident_pages() == set(range(256)) - set(range(RING_PAGES, RING_PAGES + 4))


@pytest.mark.parametrize("served", [0, 1, 2])
def test_a_queue_stopped_amid_what_a_predecessor_left_loses_none(rig: TrackedRig, served: int) -> None:
    """A successor that is stopped at once says where the first element is that nobody has answered."""
    rig.start()
    for page in range(4):
        rig.report(RING_PAGES + page)
    rig.abandon()
    for head in range(2):
        rig.set_word(REGION_HEAD_BYTES + STATE_BYTES * head, 1, 1)
        rig.set_word(REGION_HEAD_BYTES + STATE_BYTES * head + STATE_COUNTER, head, 8)
    rig.start()
    if served:
        rig.process(budget=served)
    base = rig.device.queues.stop(rig.index)
    assert base == served
    rig.start(base)
    rig.process()
    assert [head for head, _ in rig.guest.driver.take_used()] == [0, 1, 2, 3]


def test_a_statistics_buffer_that_is_held_is_found_by_a_successor() -> None:
    """It was taken and not given back, so it is in flight; the successor reads and holds it."""
    rig = TrackedRig(kind=Queue.STATS)
    rig.start()
    rig.put(bytes(10))
    rig.process()
    assert rig.word(REGION_HEAD_BYTES, 1) == 1
    rig.abandon()
    rig.start()
    rig.process()
    assert rig.used() == 0
    assert rig.device.request_statistics() is not None
    assert rig.used() == 1
    rig.close()


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (REGION_VERSION, 2, "its version is neither 0 nor 1"),
        (REGION_DESC_NUM, SIZE + 1, "another number of descriptors"),
        (REGION_USED_IDX, 5, "its last batch"),
        (REGION_USED_IDX, 0xFFFF - SIZE, "its last batch"),
    ],
)
def test_a_region_that_is_not_this_queues_is_refused(rig: TrackedRig, place: int, value: int, why: str) -> None:
    """A region that no device of ours can have left makes the start fail, with the reason."""
    rig.start()
    rig.abandon()
    rig.set_word(place, value)
    with pytest.raises(ValueError, match=why):
        rig.start()


def test_a_batch_whose_list_leaves_the_region_is_refused(rig: TrackedRig) -> None:
    """The list is followed only within the region, and only for as many elements as there are."""
    rig.start()
    rig.abandon()
    rig.set_word(REGION_USED_IDX, 0xFFFE)
    rig.set_word(REGION_LAST_BATCH_HEAD, SIZE)
    with pytest.raises(ValueError, match="its last batch"):
        rig.start()


def test_a_region_with_too_little_room_is_refused() -> None:
    """A queue larger than what the memory was made for cannot be tracked in it."""
    rig = TrackedRig(SIZE // 2)
    with pytest.raises(ValueError, match="has room for 32"):
        rig.start()
    rig.close()


def test_memory_beyond_what_a_balloon_has_is_not_made() -> None:
    """Numbers that nobody has are refused before anything is allocated."""
    for queue_count, queue_size in ((0, 1), (QUEUES_MAX + 1, 1), (1, 0), (1, 65535)):
        with pytest.raises(GuestMemoryError, match="no balloon has such queues"):
            create_inflight(queue_count, queue_size, QUEUES_MAX)


@pytest.mark.parametrize(
    ("inflight", "why"),
    [
        (Inflight(PAGE, PAGE, 1, 16), "beyond the end"),
        (Inflight(PAGE, 64, 1, 16), "not of this device"),
        (Inflight(64, 0, 1, 16), "not of this device"),
        (Inflight(1 << 63, 0, 1, 16), "beyond the end"),
        (Inflight(PAGE, 0, 9, 16), "no balloon"),
    ],
)
def test_memory_that_is_not_ours_is_refused(inflight: Inflight, why: str) -> None:
    """A description that does not fit leaves no mapping and no descriptor."""
    fd = os.memfd_create("test-inflight")
    os.ftruncate(fd, PAGE)
    with pytest.raises(GuestMemoryError, match=why):
        InflightMemory(inflight, fd, QUEUES_MAX)


def test_memory_that_cannot_be_made_is_answered_without_any(caplog: pytest.LogCaptureFixture) -> None:
    """GET_INFLIGHT_FD for queues that nobody has: a reply without memory, said in the log; the connection stays."""
    ours, theirs = socket.socketpair()
    with Server() as server:
        server.adopt(theirs)
        stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        thread = threading.Thread(target=server.run, args=(stop_fd,), daemon=True)
        thread.start()
        channel = FrontendChannel(ours)
        try:
            channel.negotiate(int(FEATURES))
            with pytest.raises(RemoteProtocolError, match="without memory"):
                channel.get_inflight(QUEUES_MAX + 1, 16)
            made = channel.get_inflight(QUEUES_MAX, 16)
            assert made is not None
            os.close(made[1])
        finally:
            channel.close()
            os.eventfd_write(stop_fd, 1)
            thread.join(TIMEOUT_S)
            os.close(stop_fd)
    assert "no balloon has such queues" in caplog.text
