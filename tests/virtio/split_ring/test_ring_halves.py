"""Each half of the split virtqueue, one behaviour at a time."""

import numpy as np
import pytest

from pagetide.virtio.split_ring import ring
from pagetide.virtio.split_ring.device import pop_element
from pagetide.virtio.split_ring.device_ring import DeviceRing, Element
from pagetide.virtio.split_ring.driver import add_element
from pagetide.virtio.split_ring.ring import RingError, need_event, place_ring
from tests.virtio.split_ring.ring_pair import avail_address, column, desc_address, make_pair, used_address

ONE_GPA, ONE_LENGTH = column(0x5000), column(0x1000)


@pytest.mark.parametrize(
    ("event", "new", "old", "wanted"),
    [
        (0, 1, 0, True),
        (1, 1, 0, False),
        (5, 9, 3, True),
        (9, 9, 3, False),
        (65535, 2, 65530, True),
        (2, 2, 65530, False),
    ],
)
def test_need_event_is_true_when_the_entry_is_passed(event: int, new: int, old: int, wanted: bool) -> None:
    """The peer is notified exactly when idx moves past the entry it named, across the wrap too."""
    assert bool(need_event(event, new, old)) is wanted


def test_a_placed_ring_has_the_sizes_and_alignments_of_the_specification() -> None:
    """Parts of a queue of 8 are 128, 22 and 70 bytes long and aligned to 16, 2 and 4."""
    place = place_ring(8, 0x1000)
    assert (place.avail_gpa, place.used_gpa, place.end_gpa) == (0x1080, 0x1098, 0x1098 + 70)
    assert ring.avail_ring_bytes(8) == 22


@pytest.mark.parametrize("size", [0, 3, 65536, -4])
def test_a_queue_size_that_is_no_power_of_two_is_refused(size: int) -> None:
    """2.7 allows powers of two up to 32768 only."""
    with pytest.raises(ValueError, match="power of two"):
        place_ring(size, 0)


def test_an_unaligned_ring_is_refused() -> None:
    """2.7.1 demands alignment of each part."""
    with pytest.raises(ValueError, match="used ring"):
        DeviceRing(4, desc_address=0x1000, avail_address=0x2000, used_address=0x3002, event_idx=False, indirect=False)


def test_a_chain_is_laid_out_as_the_specification_says() -> None:
    """The bytes of a chained element are those of 2.7.5 and 2.7.6, whatever our own device makes of them."""
    pair = make_pair(4, event_idx=False)
    head = pair.driver.add_element(column(0x1122334455, 0x7000), column(0x200000, 0xFFE00000), writable=True)
    assert head == 0
    desc = desc_address(pair)
    assert pair.memory.peek("QIHH", desc) == (0x1122334455, 0x200000, 3, 1)
    assert pair.memory.peek("QIH", desc + 16) == (0x7000, 0xFFE00000, 2)
    assert pair.memory.peek("HH", avail_address(pair)) == (0, 0)
    pair.driver.publish()
    assert pair.memory.peek("HHH", avail_address(pair)) == (0, 1, 0)


def test_an_indirect_element_takes_one_descriptor() -> None:
    """With indirect descriptors an element of three is a table of 48 bytes behind one descriptor."""
    pair = make_pair(4, event_idx=False, table_descs=4)
    pair.driver.add_element(column(1, 2, 3), column(10, 20, 30), writable=False)
    desc = desc_address(pair)
    assert pair.driver.free_descs == 3
    table_gpa, length, flags = pair.memory.peek("QIH", desc)
    assert (length, flags) == (48, ring.DESC_F_INDIRECT)
    table = pair.memory.peek("QIHH" * 3, table_gpa + pair.memory.ram_address)
    assert table == (1, 10, 1, 1, 2, 20, 1, 2, 3, 30, 0, 0)


def test_an_element_of_one_buffer_is_not_indirect() -> None:
    """A table of one would cost a second look for nothing (Linux does the same)."""
    pair = make_pair(4, event_idx=False, table_descs=4)
    pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    assert pair.memory.peek("H", desc_address(pair) + 12) == (ring.DESC_F_WRITE,)


@pytest.mark.parametrize("table_descs", [0, 4])
def test_what_was_added_is_what_is_popped(table_descs: int) -> None:
    """Addresses, lengths, order and the write flag arrive unchanged, chained or indirect."""
    pair = make_pair(4, event_idx=True, table_descs=table_descs)
    head = pair.driver.add_element(column(0x1000, 0x9000, 0x2000), column(4096, 0, 2**32 - 4096), writable=True)
    assert pair.device.pop(pair.memory.regions) is None
    pair.driver.publish()
    assert head is not None
    buffers = [(0x1000, 4096, True), (0x9000, 0, True), (0x2000, 2**32 - 4096, True)]
    assert pair.device.pop(pair.memory.regions) == Element(head, buffers)
    assert pair.device.pop(pair.memory.regions) is None


def test_a_full_ring_says_so_and_has_room_again_after_the_device_used_an_element() -> None:
    """Too few free descriptors is no error, and used elements free theirs."""
    pair = make_pair(4, event_idx=False)
    two = column(0x1000, 0x2000), column(1, 1)
    first = pair.driver.add_element(*two, writable=True)
    assert pair.driver.add_element(*two, writable=True) is not None
    assert pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True) is None
    pair.driver.publish()
    assert first is not None
    assert pair.device.pop(pair.memory.regions) is not None
    pair.device.push(first, 7)
    assert pair.driver.take_used() == []
    pair.device.publish()
    assert pair.driver.take_used() == [(first, 7)]
    assert pair.driver.free_descs == 2


@pytest.mark.parametrize(
    ("gpas", "lengths", "count"),
    [
        ((), (), 0),
        ((1, 2, 3, 4, 5), (1,) * 5, 5),
        ((1, 2), (1, 1), 3),
        ((1,), (2**32,), 1),
        ((1,), (-1,), 1),
        ((1, 2), (2**32 - 1, 2), 2),
    ],
)
@pytest.mark.parametrize("table_descs", [0, 2])
def test_an_element_that_the_rules_forbid_is_refused(
    gpas: tuple[int, ...], lengths: tuple[int, ...], count: int, table_descs: int
) -> None:
    """No descriptors, more than the queue, more than given, lengths beyond 32 bits, or beyond 2^32 in total."""
    pair = make_pair(4, event_idx=False, table_descs=table_descs)
    assert add_element(pair.driver.state, column(*gpas), column(*lengths), count, 1) == ring.BAD_ELEMENT
    assert pair.driver.free_descs == 4


def test_without_event_idx_the_flags_decide_on_kicks_and_calls() -> None:
    """NO_NOTIFY and NO_INTERRUPT are set by disarming, cleared by arming, and obeyed."""
    pair = make_pair(4, event_idx=False)
    driver, device, regions = pair.driver, pair.device, pair.memory.regions
    kicks, calls = [], []
    for armed in (True, False, True):
        if armed:
            driver.arm_call()
            device.arm_kick()
        else:
            driver.disarm_call()
            device.disarm_kick()
        head = driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
        kicks.append(driver.publish())
        assert head is not None
        assert device.pop(regions) is not None
        device.push(head, 0)
        calls.append(device.publish())
        driver.take_used()
    assert kicks == calls == [True, False, True]


def test_with_event_idx_only_the_entry_armed_for_is_notified() -> None:
    """After one kick there is none until the device arms again, and the flags are never touched."""
    pair = make_pair(4, event_idx=True)
    kicks = []
    for _ in range(3):
        pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
        kicks.append(pair.driver.publish())
    assert kicks == [True, False, False]
    calls = []
    for _ in range(3):
        element = pair.device.pop(pair.memory.regions)
        assert element is not None
        pair.device.push(element.head, 0)
        calls.append(pair.device.publish())
    assert calls == [True, False, False]
    pair.driver.take_used()
    assert (pair.driver.arm_call(), pair.device.arm_kick()) == (False, False)
    pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    assert pair.driver.publish()
    pair.driver.disarm_call()
    pair.device.disarm_kick()
    assert pair.memory.peek("H", avail_address(pair)) == pair.memory.peek("H", used_address(pair)) == (0,)


@pytest.mark.parametrize("event_idx", [False, True])
def test_nothing_new_means_no_notification(event_idx: bool) -> None:
    """Publishing nothing neither kicks nor calls."""
    pair = make_pair(4, event_idx=event_idx)
    assert (pair.driver.publish(), pair.device.publish()) == (False, False)


@pytest.mark.parametrize("event_idx", [False, True])
def test_arming_tells_of_what_came_before(event_idx: bool) -> None:
    """Whoever arms with work already there must not sleep."""
    pair = make_pair(4, event_idx=event_idx)
    assert not pair.device.arm_kick()
    head = pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    pair.driver.publish()
    assert pair.device.arm_kick()
    assert pair.device.pop(pair.memory.regions) is not None
    assert not pair.device.arm_kick()
    assert not pair.driver.arm_call()
    assert head is not None
    pair.device.push(head, 0)
    pair.device.publish()
    assert pair.driver.arm_call()
    pair.driver.take_used()
    assert not pair.driver.arm_call()


def test_a_new_device_goes_on_where_the_old_one_was_stopped() -> None:
    """GET_VRING_BASE of one device is SET_VRING_BASE of the next, and used entries go on after the old ones."""
    pair = make_pair(4, event_idx=False, start=65534)
    for _ in range(3):
        pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    pair.driver.publish()
    for _ in range(2):
        element = pair.device.pop(pair.memory.regions)
        assert element is not None
        pair.device.push(element.head, 0)
    pair.device.publish()
    assert pair.device.last_avail == 0
    successor = DeviceRing(
        4,
        desc_address=desc_address(pair),
        avail_address=avail_address(pair),
        used_address=used_address(pair),
        event_idx=False,
        indirect=False,
        base=pair.device.last_avail,
    )
    element = successor.pop(pair.memory.regions)
    assert element is not None
    successor.push(element.head, 0)
    successor.publish()
    assert len(pair.driver.take_used()) == 3


def test_a_base_that_does_not_fit_the_used_ring_is_refused() -> None:
    """More elements between used idx and base than the queue holds cannot be."""
    pair = make_pair(4, event_idx=False)
    with pytest.raises(ValueError, match="base 5"):
        DeviceRing(
            4,
            desc_address=desc_address(pair),
            avail_address=avail_address(pair),
            used_address=used_address(pair),
            event_idx=False,
            indirect=False,
            base=5,
        )


@pytest.mark.parametrize(("head", "length"), [(-1, 0), (4, 0), (0, -1), (0, 2**32)])
def test_a_push_out_of_range_is_refused(head: int, length: int) -> None:
    """Our own device cannot write nonsense into the used ring."""
    pair = make_pair(4, event_idx=False)
    pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    pair.driver.publish()
    assert pair.device.pop(pair.memory.regions) is not None
    with pytest.raises(RingError) as caught:
        pair.device.push(head, length)
    assert caught.value.code == ring.BAD_PUSH


@pytest.mark.parametrize("start", [0, 65535])
def test_a_push_of_more_than_was_popped_is_refused(start: int) -> None:
    """Each popped element is given back once, before and after the indices wrap."""
    pair = make_pair(4, event_idx=False, start=start)
    with pytest.raises(RingError, match="popped"):
        pair.device.push(0, 0)
    pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    pair.driver.publish()
    assert pair.device.pop(pair.memory.regions) is not None
    pair.device.push(0, 0)
    with pytest.raises(RingError, match="popped"):
        pair.device.push(0, 0)


def _used_by_device(idx: int, head: int) -> int:
    """The driver's answer to a device that writes this used idx and id when one element is outstanding."""
    pair = make_pair(4, event_idx=False)
    pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    pair.driver.publish()
    pair.memory.poke("HI", used_address(pair) + 2, idx, head)
    with pytest.raises(RingError) as caught:
        pair.driver.take_used()
    assert pair.driver.free_descs == 3
    return caught.value.code


@pytest.mark.parametrize(
    ("idx", "head", "code"),
    [
        (2, 0, ring.USED_IDX),
        (65535, 0, ring.USED_IDX),
        (1, 4, ring.USED_ID_RANGE),
        (1, 2**32 - 1, ring.USED_ID_RANGE),
        (1, 1, ring.USED_ID_NOT_OUTSTANDING),
    ],
)
def test_the_driver_detects_a_wrong_device(idx: int, head: int, code: int) -> None:
    """A used idx or id that cannot be is an error, and frees nothing."""
    assert _used_by_device(idx, head) == code


def test_the_driver_detects_an_element_used_twice() -> None:
    """An id that was outstanding and has been taken is refused when it comes again."""
    pair = make_pair(4, event_idx=False)
    for _ in range(2):
        pair.driver.add_element(ONE_GPA, ONE_LENGTH, writable=True)
    pair.driver.publish()
    pair.memory.poke("HIIII", used_address(pair) + 2, 2, 0, 0, 0, 0)
    with pytest.raises(RingError) as caught:
        pair.driver.take_used()
    assert caught.value.code == ring.USED_ID_NOT_OUTSTANDING
    assert pair.driver.free_descs == 3


def test_arrays_shorter_than_the_queue_are_refused() -> None:
    """pop_element never writes beyond its caller's arrays."""
    pair = make_pair(4, event_idx=False)
    short, long = np.zeros(3, np.int64), np.zeros(4, np.int64)
    for arrays in ((short, short, short), (long, short, long), (long, long, short)):
        assert pop_element(pair.device.state, pair.memory.regions, *arrays) == ring.ARRAYS_TOO_SHORT


def test_every_code_has_a_text() -> None:
    """error_text knows all of them and nothing else."""
    texts = {ring.error_text(code) for code in range(ring.BAD_PUSH, 0)}
    assert len(texts) == -ring.BAD_PUSH
    with pytest.raises(KeyError):
        ring.error_text(0)
