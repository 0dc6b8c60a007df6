"""The balloon device on a real ring over real memory, without sockets."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device import balloon as device
from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.queues.element import TURN_BYTES_MAX
from pagetide.host.device.queues.place import NotSharedError, QueuePlace
from pagetide.host.device.queues.turn import NOTHING, Turn
from pagetide.host.memory.guest_memory import GuestMemory, SharedMemoryLimit
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.driver import AVAIL_ADDRESS
from pagetide.virtio.split_ring.ring import RING_ENTRIES, RingError
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from pagetide.virtio.vhost_user.rules import MEM_SLOTS_MAX
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, SIZE, USER, GuestRing

FULL = int(device.FEATURES & ~device.OPTIONAL_FEATURES | Feature.REPORTING)
PLAIN = int(Feature.VERSION_1 | Feature.REPORTING)
PAGES = 1024
REPORTING = queues(FULL).index(Queue.REPORTING)


class Rig:
    """A guest and the device that serves it."""

    def __init__(self, features: int = FULL, verify_share: float = 1.0, pages: int = PAGES) -> None:
        self.guest = GuestRing(pages, features)
        self.memory = GuestMemory()
        self.memory.add(self.guest.region, os.dup(self.guest.ram.fd))
        self.device = BalloonDevice(self.memory, Ledger(), verify_share=verify_share)
        self.device.start_queue(REPORTING, self.guest.queue_place, 0, features)

    def close(self) -> None:
        """Give everything back."""
        self.memory.close()
        self.guest.ram.close()


@pytest.fixture(params=[FULL, PLAIN, FULL & ~Feature.EVENT_IDX], ids=["full", "plain", "no event index"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A device with 4 MiB of guest, with and without event index and indirect descriptors."""
    with closing(Rig(request.param)) as rig:
        yield rig


@pytest.mark.parametrize("count", [1, 2, 32])
def test_reported_blocks_are_gone_before_the_acknowledgement(rig: Rig, count: int) -> None:
    """One element of any number of blocks is discarded, verified and given back; everything else is intact."""
    blocks = [(RING_PAGES + 1 + 16 * n, 8) for n in range(count)]
    rig.guest.add(blocks)
    rig.guest.driver.publish()
    rig.guest.driver.arm_call()
    assert rig.device.process(REPORTING, 8) == Turn(call=True, more=False, in_vain=0.0, pages=8 * count, reports=1)
    assert [length for _, length in rig.guest.driver.take_used()] == [0]
    gone = {page for start, pages in blocks for page in range(start, start + pages)}
    assert rig.guest.resident_pages() == set(range(PAGES)) - gone
    assert all(rig.guest.intact(page) for page in set(range(RING_PAGES, PAGES)) - gone)
    snapshot = rig.device.ledger.snapshot()
    assert (snapshot["reports"], snapshot["blocks"]) == (1, count)
    assert snapshot["verified_bytes"] == snapshot["discarded_bytes"] == snapshot["reported_bytes"] == count * 8 * PAGE


def test_a_turn_takes_no_more_than_its_budget(rig: Rig) -> None:
    """A backlog is served in turns, each saying that more is waiting, and the last one that nothing is."""
    for n in range(5):
        rig.guest.add([(RING_PAGES + n, 1)])
    rig.guest.driver.publish()
    assert rig.device.process(REPORTING, 2).more
    assert len(rig.guest.driver.take_used()) == 2
    assert rig.device.process(REPORTING, 2).more
    assert not rig.device.process(REPORTING, 2).more
    assert len(rig.guest.driver.take_used()) == 3


def test_a_turn_ends_when_it_has_discarded_enough() -> None:
    """Large elements end a turn before its budget is used up; what is not dealt with waits for the next."""
    rig = Rig(pages=2 * PAGES)
    element_bytes = (2 * PAGES - RING_PAGES) * PAGE
    for _ in range(SIZE):
        rig.guest.add([(RING_PAGES, element_bytes // PAGE)])
    rig.guest.driver.publish()
    assert rig.device.process(REPORTING, SIZE).more
    assert len(rig.guest.driver.take_used()) == TURN_BYTES_MAX // element_bytes < SIZE
    assert not rig.device.process(REPORTING, SIZE).more
    rig.close()


def test_after_a_turn_the_next_element_brings_a_kick(rig: Rig) -> None:
    """A drained queue asks to be kicked again: the driver that publishes one more is told to."""
    for n in range(3):
        rig.guest.add([(RING_PAGES + n, 1)])
        assert rig.guest.driver.publish() or n == 0
        assert not rig.device.process(REPORTING, 8).more
    assert len(rig.guest.driver.take_used()) == 3


def test_a_driver_that_polls_is_not_called(rig: Rig) -> None:
    """A driver that asked for no calls gets none, and its element back all the same."""
    rig.guest.driver.arm_call()
    rig.guest.driver.disarm_call()
    for n in range(2):
        rig.guest.add([(RING_PAGES + n, 1)])
        rig.guest.driver.publish()
        turn = rig.device.process(REPORTING, 8)
    assert not turn.call
    assert len(rig.guest.driver.take_used()) == 2


@pytest.mark.parametrize(
    ("blocks", "writable", "in_vain"),
    [
        ([], True, 1.0),
        ([(RING_PAGES, 8)], True, 0.0),
        ([(RING_PAGES, 8), (RING_PAGES, 8)], True, 0.0),
        ([(RING_PAGES, 8), (1 << 30, 8)], True, 0.5),
        ([(RING_PAGES, 4095), (1 << 30, 1)], True, 1 / 4096),
        ([(1 << 30, 8)], True, 1.0),
        ([(RING_PAGES, 8)], False, 1.0),
    ],
)
def test_a_turn_tells_what_share_of_it_was_in_vain(
    blocks: list[tuple[int, int]], writable: bool, in_vain: float
) -> None:
    """Nothing for blocks of the guest's own, however little it is for others', and all if nothing was named."""
    rig = Rig(pages=8192)
    for element in [blocks] if blocks else []:
        rig.guest.add(element, writable=writable)
    rig.guest.driver.publish()
    turn = rig.device.process(REPORTING, 8)
    assert turn.in_vain == pytest.approx(in_vain, abs=0.002)
    assert (turn.in_vain > 0) == (in_vain > 0)
    assert turn.reports == len(blocks[:1])
    assert rig.device.process(REPORTING, 8).in_vain == 1.0
    rig.close()


def test_a_share_of_the_elements_is_read_back() -> None:
    """With a share of a quarter, the first and then every fourth element is checked; with 0 none is."""
    for share, checked in ((0.25, [1, 1, 1, 1, 2, 2, 2, 2, 3]), (0.0, [0] * 9), (1.0, list(range(1, 10)))):
        rig = Rig(verify_share=share)
        seen = []
        for _ in range(9):
            rig.guest.add([(RING_PAGES, 1)])
            rig.guest.driver.publish()
            rig.device.process(REPORTING, 8)
            rig.guest.driver.take_used()
            seen.append(rig.device.ledger.snapshot()["checked_bytes"] // PAGE)
        assert seen == checked
        rig.close()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_must_be_a_share(share: float) -> None:
    """Shares below 0 and above 1 are refused."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        BalloonDevice(GuestMemory(), Ledger(), verify_share=share)


def test_a_broken_ring_is_an_error_with_its_clause(rig: Rig) -> None:
    """A head outside the descriptor table raises what rule was broken; the elements before it are given back."""
    rig.guest.add([(RING_PAGES, 1)])
    rig.guest.add([(RING_PAGES + 1, 1)])
    slot = int(rig.guest.driver.state[AVAIL_ADDRESS]) + RING_ENTRIES + 2 - rig.guest.ram.address
    rig.guest.ram.words.view("u2")[slot // 2] = SIZE
    rig.guest.driver.publish()
    with pytest.raises(RingError, match="no index of the descriptor table"):
        rig.device.process(REPORTING, 8)
    assert len(rig.guest.driver.take_used()) == 1


def test_the_ring_itself_may_be_reported(rig: Rig) -> None:
    """A guest that gives away its own ring loses what is in it: an error of that ring, like any other."""
    rig.guest.add([(0, RING_PAGES)])
    rig.guest.driver.publish()
    with pytest.raises(RingError, match="available idx went back"):
        rig.device.process(REPORTING, 8)
    assert rig.device.ledger.snapshot()["reported_bytes"] == RING_PAGES * PAGE


def test_a_queue_that_the_device_does_not_serve_is_left_alone(rig: Rig) -> None:
    """Elements of a queue beyond those negotiated, or not started, stay where they are."""
    for index in (len(queues(FULL)), 7):
        if index != 7:
            rig.device.start_queue(index, rig.guest.queue_place, 0, FULL)
        rig.guest.add([(RING_PAGES, 1)])
        rig.guest.driver.publish()
        assert rig.device.process(index, 8) == NOTHING
    assert rig.guest.driver.take_used() == []


def test_a_queue_goes_on_where_it_stopped(rig: Rig) -> None:
    """Stopping a queue tells the next available entry, and starting it there serves the next element once."""
    for n in range(3):
        rig.guest.add([(RING_PAGES + n, 1)])
        rig.guest.driver.publish()
        rig.device.process(REPORTING, 8)
        base = rig.device.queues.stop(REPORTING)
        assert base == n + 1
        assert rig.device.queues.stop(REPORTING) is None
        rig.device.start_queue(REPORTING, rig.guest.queue_place, base, FULL)
    assert rig.device.ledger.snapshot()["reports"] == 3


def test_a_queue_outside_memory_is_refused(rig: Rig) -> None:
    """Each part must lie within the guest's memory, to its last byte."""
    place = rig.guest.queue_place
    end = USER + PAGES * PAGE
    for wrong in (
        place._replace(desc_user_address=end - SIZE * 16 + 16),
        place._replace(avail_user_address=GPA),
        place._replace(used_user_address=end - SIZE * 8),
    ):
        with pytest.raises(GuestMemoryError, match="not in the guest's memory"):
            rig.device.start_queue(0, wrong, 0, FULL)
    with pytest.raises(ValueError, match="power of two"):
        rig.device.start_queue(0, QueuePlace(3, *place[1:]), 0, FULL)
    with pytest.raises(ValueError, match="aligned"):
        rig.device.start_queue(0, place._replace(desc_user_address=USER + 8), 0, FULL)


def test_rings_move_with_the_memory(rig: Rig) -> None:
    """A started queue is found again where its region is mapped anew, and is served no more when the region is gone."""
    before = rig.memory.address_of(USER, 1)
    rig.memory.replace([rig.guest.region._replace(size_bytes=PAGES * PAGE - PAGE)], [os.dup(rig.guest.ram.fd)])
    assert rig.memory.address_of(USER, 1) != before
    rig.device.queues.memory_changed()
    rig.guest.add([(RING_PAGES, 1)])
    rig.guest.driver.publish()
    rig.device.process(REPORTING, 8)
    assert len(rig.guest.driver.take_used()) == 1
    rig.memory.close()
    with pytest.raises(GuestMemoryError, match="shares none of the guest's memory"):
        rig.device.queues.memory_changed()
    rig.guest.add([(RING_PAGES, 1)])
    rig.guest.driver.publish()
    assert rig.device.process(REPORTING, 8) == NOTHING


_WORDS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 80)
_DESCRIPTOR_WORDS = st.builds(
    lambda page, odd, length, flags, after: (GPA + page * PAGE + odd, length | flags << 32 | after << 48),
    st.integers(-4, 130),
    st.sampled_from([0, 0, 0, 1, 16]),
    st.sampled_from([0, 16, PAGE, 3 * PAGE, 200 * PAGE, (1 << 32) - 1]),
    st.integers(0, 7),
    st.sampled_from([0, 1, 2, SIZE - 1, SIZE]),
)


@given(st.lists(_DESCRIPTOR_WORDS, min_size=1, max_size=12), st.lists(_WORDS, max_size=8), st.integers(0, SIZE))
@settings(max_examples=60)
def test_whatever_is_in_the_ring_the_device_stays_in_its_region(
    descriptors: list[tuple[int, int]], avail: list[int], ahead: int
) -> None:
    """Any bytes in the ring: a turn ends in order or in a ring error, and memory outside the regions is untouched."""
    with GuestRing(128, FULL) as guest:
        half = guest.region._replace(size_bytes=64 * PAGE)
        memory = GuestMemory()
        memory.add(half, os.dup(guest.ram.fd))
        one = BalloonDevice(memory, Ledger())
        one.start_queue(REPORTING, guest.queue_place, 0, FULL)
        table = np.array(descriptors, np.int64).reshape(-1)
        guest.ram.words[: table.size] = table
        avail_word = (guest.place.avail_gpa - GPA) // 8
        guest.ram.words[avail_word : avail_word + len(avail)] = avail
        guest.ram.words.view("u2")[avail_word * 4 + 1] = ahead
        try:
            while one.process(REPORTING, 8).more:
                pass
        except RingError:
            pass
        assert all(guest.intact(page) for page in range(64, 128))
        assert guest.resident_pages() >= set(range(64, 128))
        snapshot = one.ledger.snapshot()
        assert snapshot["reported_bytes"] == snapshot["discarded_bytes"] + sum(one.ledger.skipped_bytes().values())
        assert snapshot["reports"] <= ahead
        memory.close()


def test_a_discard_that_fails_says_why_once() -> None:
    """A sealed file makes the call fail: the element is given back, and the reason is told one time."""
    rig = Rig()
    memory = GuestMemory()
    read_only = os.open(f"/proc/self/fd/{rig.guest.ram.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        memory.add(rig.guest.region, os.dup(rig.guest.ram.fd))
        memory.region_map.table[0, 2] = read_only
        other = BalloonDevice(memory, Ledger())
        other.start_queue(REPORTING, rig.guest.queue_place, 0, FULL)
        rig.guest.add([(RING_PAGES, 1)])
        rig.guest.driver.publish()
        assert other.process(REPORTING, 8).failure == errno.EBADF
        assert len(rig.guest.driver.take_used()) == 1
        assert other.process(REPORTING, 8).failure == 0
        assert other.ledger.skipped_bytes()["failed"] == PAGE
    finally:
        os.close(read_only)
        memory.close()
        rig.close()


def _file(size_bytes: int) -> int:
    fd = os.memfd_create("test-guest-memory")
    os.ftruncate(fd, size_bytes)
    return fd


@pytest.mark.parametrize(
    ("region", "why"),
    [
        (MemoryRegion(0, 8 * PAGE, 0, PAGE), "beyond the end"),
        (MemoryRegion(0, 8 * PAGE, 0, (1 << 64) - PAGE), "beyond the end"),
        (MemoryRegion(512, PAGE, 0, 0), "page boundaries"),
        (MemoryRegion(0, 0, 0, 0), "empty"),
        (MemoryRegion(0, PAGE, (1 << 64) - 1, 0), "wraps"),
        (MemoryRegion(20 * PAGE, 2 * PAGE, 0, 0), "overlaps"),
        (MemoryRegion((1 << 63) - PAGE, PAGE, 0, 0), "too high"),
    ],
)
def test_regions_that_cannot_be_are_refused(region: MemoryRegion, why: str) -> None:
    """A bad region is an error, and leaves no descriptor open and no trace in the map."""
    memory = GuestMemory()
    memory.add(MemoryRegion(20 * PAGE, PAGE, 0, 0), _file(PAGE))
    with pytest.raises(GuestMemoryError, match=why):
        memory.add(region, _file(8 * PAGE))
    assert memory.region_map.table[:, 0].tolist() == [20 * PAGE]
    memory.close()


def test_a_file_that_cannot_be_mapped_is_refused() -> None:
    """A descriptor without memory behind it, here a read-only one, is an error that names the call."""
    memory = GuestMemory()
    with pytest.raises(GuestMemoryError, match="mmap"):
        memory.add(MemoryRegion(0, PAGE, 0, 0), _read_only())
    memory.close()


def _read_only() -> int:
    fd = _file(PAGE)
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    return read_only


def test_regions_come_and_go() -> None:
    """Addresses are found in the regions that are there, by user address, and not in those removed."""
    memory = GuestMemory()
    for n in range(3):
        memory.add(MemoryRegion(n * 16 * PAGE, 4 * PAGE, USER + n * 64 * PAGE, 0), _file(4 * PAGE))
    first = memory.address_of(USER, 4 * PAGE)
    assert memory.address_of(USER + PAGE, 1) == first + PAGE
    assert memory.address_of(USER + 64 * PAGE, PAGE) != first
    memory.remove(16 * PAGE, 4 * PAGE, USER + 64 * PAGE)
    with pytest.raises(GuestMemoryError, match="no memory region holds"):
        memory.address_of(USER + 64 * PAGE, PAGE)
    with pytest.raises(GuestMemoryError, match="to remove"):
        memory.remove(16 * PAGE, 4 * PAGE, USER + 64 * PAGE)
    assert len(memory.region_map.table) == 2
    with pytest.raises(GuestMemoryError, match="beyond the end"):
        memory.replace([MemoryRegion(0, PAGE, 0, 0), MemoryRegion(PAGE, 2 * PAGE, 0, 0)], [_file(PAGE), _file(PAGE)])
    assert memory.address_of(USER, 1) == first
    memory.replace([MemoryRegion(0, PAGE, 0, 0)], [_file(PAGE)])
    assert memory.region_map.table[:, 0].tolist() == [0]
    memory.close()
    assert len(memory.region_map.table) == 0


def _used_length(rig: Rig, blocks: list[tuple[int, int]]) -> int:
    rig.guest.add(blocks)
    rig.guest.driver.publish()
    while rig.device.process(REPORTING, 8).more:
        pass
    ((_, length),) = rig.guest.driver.take_used()
    return int(length)


def test_the_used_length_tells_that_all_of_a_report_is_zeros() -> None:
    """With the draft's DEVICE_INIT_REPORTED: all of an element that was verified gone, otherwise none of it."""
    rig = Rig(FULL | Feature.DEVICE_INIT_REPORTED)
    assert _used_length(rig, [(RING_PAGES, 8), (RING_PAGES + 16, 4)]) == 12 * PAGE
    assert not rig.guest.ram.words[RING_PAGES * PAGE // 8 : (RING_PAGES + 8) * PAGE // 8].any()
    assert _used_length(rig, [(RING_PAGES, 8), (1 << 30, 1)]) == 0, "a part is outside of RAM"
    assert _used_length(rig, [(RING_PAGES, 8), (RING_PAGES, 8)]) == 0, "a part is named twice"
    rig.device.inhibited = True
    assert _used_length(rig, [(RING_PAGES, 8)]) == 0
    rig.close()


def test_the_used_length_tells_nothing_that_was_not_read_back() -> None:
    """Every other element is verified, and only of those anything is told; without the feature of none."""
    rig = Rig(FULL | Feature.DEVICE_INIT_REPORTED, verify_share=0.5)
    assert [_used_length(rig, [(RING_PAGES + n, 1)]) for n in range(4)] == [PAGE, 0, PAGE, 0]
    rig.close()
    rig = Rig(FULL)
    assert _used_length(rig, [(RING_PAGES, 8)]) == 0
    rig.close()


def test_a_guest_of_private_memory_is_told_so() -> None:
    """A queue in memory of which nothing is shared is refused with what to do about it."""
    rig = Rig()
    rig.memory.replace([], [])
    with pytest.raises(NotSharedError, match="share=on"):
        rig.device.start_queue(0, rig.guest.queue_place, 0, FULL)
    rig.close()


def test_a_table_that_is_sent_again_counts_once() -> None:
    """A guest with more than half of what may be shared sends its table again, with one region more and one less."""
    tib = 1 << 40
    limit = SharedMemoryLimit(10 * tib)
    memory = GuestMemory(limit)
    big_fd = _file(9 * tib)
    big, small = MemoryRegion(1 << 44, 9 * tib, 1 << 44, 0), MemoryRegion(0, PAGE, 0, 0)
    memory.replace([big], [os.dup(big_fd)])
    there = memory.address_of(1 << 44, PAGE)
    memory.replace([small, big], [_file(PAGE), os.dup(big_fd)])
    assert memory.address_of(1 << 44, PAGE) == there, "what stays is not mapped again"
    assert limit.left_bytes == tib - PAGE
    with pytest.raises(GuestMemoryError, match="may still share"):
        memory.replace([big, MemoryRegion(1 << 50, 2 * tib, 0, 0)], [os.dup(big_fd), _file(2 * tib)])
    assert limit.left_bytes == tib - PAGE
    memory.replace([big], [_file(9 * tib)])  # another file, at the same addresses
    assert memory.address_of(1 << 44, PAGE) != there
    memory.replace([], [])
    assert limit.left_bytes == 10 * tib
    memory.close()
    os.close(big_fd)


def test_what_was_discarded_stays_known_over_a_new_table() -> None:
    """A page that came back is counted also if the table was sent again since it was discarded."""
    rig = Rig()
    rig.guest.add([(RING_PAGES, 4)])
    rig.guest.driver.publish()
    rig.device.process(REPORTING, 8)
    rig.memory.replace([rig.guest.region], [os.dup(rig.guest.ram.fd)])
    rig.guest.ram.words[RING_PAGES * PAGE // 8] = 1
    assert rig.memory.take_refaulted_bytes() == PAGE
    rig.close()


def test_a_guest_has_as_many_regions_as_it_was_told() -> None:
    """One memory region more than GET_MAX_MEM_SLOTS offers is refused, and its descriptor is not left open."""
    memory = GuestMemory()
    with GuestRam.create(PAGE, "memfd") as ram:
        for index in range(MEM_SLOTS_MAX):
            memory.add(MemoryRegion(index * PAGE, PAGE, 0, 0), os.dup(ram.fd))
        with pytest.raises(GuestMemoryError, match=f"room for {MEM_SLOTS_MAX} memory regions"):
            memory.add(MemoryRegion(MEM_SLOTS_MAX * PAGE, PAGE, 0, 0), os.dup(ram.fd))
    memory.close()
