"""The device half against drivers that break every rule."""

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.memory.region_map import REGION_ADDRESS
from pagetide.virtio.split_ring import ring
from pagetide.virtio.split_ring.device import pop_element
from pagetide.virtio.split_ring.device_ring import DeviceRing
from pagetide.virtio.split_ring.ring import RingError
from tests.virtio.split_ring.hostile_guest import (
    AVAIL_GPA,
    DESC_GPA,
    END_GPA,
    GPA,
    HIGH_GPA,
    PAGE,
    SIZE,
    TABLE_GPA,
    Descriptor,
    Guest,
)

ROOM = 12
CANARY = 0x5AFE


def pop(guest: Guest, device: DeviceRing) -> list[tuple[int, int, int]] | int:
    """What pop_element makes of the ring: the descriptors or the code; fails if it wrote where it may not."""
    arrays = np.full((3, ROOM + 4), CANARY, np.int64)
    before = bytes(guest.memory)
    count = int(pop_element(device.state, guest.regions, *(array[:ROOM] for array in arrays)))
    assert bytes(guest.memory) == before
    assert (arrays[:, ROOM:] == CANARY).all()
    assert count <= ROOM
    if count < 0:
        assert ring.error_text(count)
    return list(zip(*(array[:count].tolist() for array in arrays), strict=True)) if count > 0 else count


def follow(guest: Guest, table: int, entries: int, index: int) -> list[Descriptor]:
    """The chain from an index on as the specification has it: descriptors up to the last or an indirect one."""
    chain: list[Descriptor] = []
    for _ in range(entries):
        gpa, length, flags, after = guest.read("qIHH", table + 16 * index)
        chain.append((gpa, length, flags, after))
        if flags & 5 == 5:
            raise RingError(ring.INDIRECT_WITH_NEXT)
        if not flags & 1:
            return chain
        if after >= entries:
            raise RingError(ring.NEXT_RANGE)
        index = after
    raise RingError(ring.CHAIN_LOOPS)


def follow_table(guest: Guest, gpa: int, length: int, room: int) -> list[Descriptor]:
    """The descriptors of an indirect table."""
    if length == 0 or length % 16:
        raise RingError(ring.TABLE_LENGTH)
    if length // 16 > room:
        raise RingError(ring.TABLE_TOO_LONG)
    if not GPA <= gpa <= gpa + length <= END_GPA:
        raise RingError(ring.TABLE_OUTSIDE)
    chain = follow(guest, gpa, length // 16, 0)
    if chain[-1][2] & 4:
        raise RingError(ring.INDIRECT_NESTED)
    return chain


def first_element(guest: Guest, *, indirect: bool) -> list[tuple[int, int, int]]:
    """What the first pop must find, by a straightforward reading of virtio 1.2, 2.7.5 and 2.7.6."""
    _, idx, head = guest.read("HHH", AVAIL_GPA)
    if idx == 0:
        return []
    if idx > SIZE:
        raise RingError(ring.AVAIL_IDX)
    if head >= SIZE:
        raise RingError(ring.HEAD_RANGE)
    chain = follow(guest, DESC_GPA, SIZE, head)
    if chain[-1][2] & 4:
        if not indirect:
            raise RingError(ring.INDIRECT_NOT_NEGOTIATED)
        gpa, length = chain.pop()[:2]
        chain += follow_table(guest, gpa, length, ROOM - len(chain))
    return [(gpa, length, flags & 2) for gpa, length, flags, _ in chain]


def expected(guest: Guest, *, indirect: bool) -> list[tuple[int, int, int]] | int:
    """What the first pop must answer."""
    try:
        return first_element(guest, indirect=indirect) or 0
    except RingError as error:
        return error.code


ADDRESSES = st.sampled_from(
    [
        *(TABLE_GPA, TABLE_GPA + 16, TABLE_GPA + 1, DESC_GPA, HIGH_GPA - 16, HIGH_GPA, END_GPA - 128, END_GPA - 16),
        *(END_GPA, GPA - 16, 0, 1 << 63, (1 << 63) - 16, (1 << 64) - 16),
    ]
)
LENGTHS = st.one_of(
    st.sampled_from([16, 32, 64, 128, 16 * ROOM, 0, 8, 24, 16 * (ROOM + 1), 2**32 - 16]), st.integers(0, 300)
)
FLAGS = st.one_of(st.sampled_from([0, 1, 1, 1, 2, 3, 3, 4, 4, 6, 5]), st.integers(0, 65535))
NEXTS = st.one_of(st.integers(0, SIZE), st.integers(0, 65535))
TABLES = st.lists(st.tuples(ADDRESSES, LENGTHS, FLAGS, NEXTS), min_size=SIZE, max_size=SIZE)


@settings(max_examples=400, deadline=None)
@given(
    descs=TABLES,
    table=TABLES,
    high_table=TABLES,
    idx=st.one_of(st.integers(1, SIZE), st.integers(0, 65535)),
    head=st.one_of(st.integers(0, SIZE), st.integers(0, 65535)),
    indirect=st.booleans(),
)
def test_any_ring_gives_what_the_specification_says(
    descs: list[Descriptor], table: list[Descriptor], high_table: list[Descriptor], idx: int, head: int, indirect: bool
) -> None:
    """Whatever is in the tables and rings: the right descriptors or the right error, and no byte outside touched."""
    with Guest() as guest:
        guest.write_table(DESC_GPA, descs)
        guest.write_table(TABLE_GPA, table)
        guest.write_table(END_GPA - 16 * SIZE, high_table)
        guest.write("HHH", AVAIL_GPA, 0, idx, head)
        assert pop(guest, guest.device(indirect=indirect)) == expected(guest, indirect=indirect)


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(min_size=AVAIL_GPA - GPA + 32, max_size=AVAIL_GPA - GPA + 32), idx=st.integers(1, SIZE))
def test_noise_never_does_harm(noise: bytes, idx: int) -> None:
    """Random bytes as descriptors and available ring: as many pops as there are entries, each a count or an error."""
    with Guest() as guest:
        guest.write(f"{len(noise)}B", GPA, *noise)
        guest.write("H", AVAIL_GPA + 2, idx)
        device = guest.device(indirect=True)
        for _ in range(idx):
            if isinstance(pop(guest, device), int):
                break
        else:
            assert pop(guest, device) == 0
        assert device.last_avail <= idx


def one_element(descs: list[Descriptor], table: list[Descriptor], *, indirect: bool = True) -> list[Any] | int:
    """What popping head 0 answers with these descriptors and this indirect table at TABLE_GPA."""
    with Guest() as guest:
        guest.write_table(DESC_GPA, descs)
        guest.write_table(TABLE_GPA, table)
        guest.write("HHH", AVAIL_GPA, 0, 1, 0)
        device = guest.device(indirect=indirect)
        answer = pop(guest, device)
        assert device.last_avail == (0 if isinstance(answer, int) else 1)
        return answer


LOOP = [(1, 1, 1, 1), (2, 1, 1, 0)]
TABLE_32 = (TABLE_GPA, 32, 4, 0)


@pytest.mark.parametrize(
    ("descs", "table", "code"),
    [
        (LOOP, [], ring.CHAIN_LOOPS),
        ([(1, 1, 1, 0)], [], ring.CHAIN_LOOPS),
        ([(1, 1, 1, SIZE)], [], ring.NEXT_RANGE),
        ([(TABLE_GPA, 32, 5, 0)], [], ring.INDIRECT_WITH_NEXT),
        ([TABLE_32], [(1, 1, 1, 1), TABLE_32], ring.INDIRECT_NESTED),
        ([TABLE_32], [(1, 1, 5, 1)], ring.INDIRECT_WITH_NEXT),
        ([TABLE_32], LOOP, ring.CHAIN_LOOPS),
        ([TABLE_32], [(1, 1, 1, 2)], ring.NEXT_RANGE),
        ([(TABLE_GPA, 0, 4, 0)], [], ring.TABLE_LENGTH),
        ([(TABLE_GPA, 24, 4, 0)], [], ring.TABLE_LENGTH),
        ([(TABLE_GPA, 16 * (ROOM + 1), 4, 0)], [], ring.TABLE_TOO_LONG),
        ([(1, 1, 1, 1), (TABLE_GPA, 16 * ROOM, 4, 0)], [], ring.TABLE_TOO_LONG),
        ([(END_GPA - 16, 32, 4, 0)], [], ring.TABLE_OUTSIDE),
        ([(2**64 - 16, 32, 4, 0)], [], ring.TABLE_OUTSIDE),
    ],
)
def test_each_broken_rule_has_its_error(descs: list[Descriptor], table: list[Descriptor], code: int) -> None:
    """Loops, bad indices and bad indirect tables are told apart, and nothing is popped."""
    assert one_element(descs, table) == code


def test_a_table_is_read_across_two_regions_that_adjoin() -> None:
    """The border lies within a descriptor, and within a number: each byte comes from its own region."""
    table = [(0x0123_4567_89AB_CDEF, 0x1020_3040, 3, 1), ((1 << 64) - 1, 0xFFFF_FFFF, 2, 0)]
    for into in range(33):
        with Guest() as guest:
            guest.write_table(DESC_GPA, [(HIGH_GPA - into, 32, 4, 0)])
            guest.write_table(HIGH_GPA - into, table)
            high = (ctypes.c_uint8 * PAGE).from_buffer_copy(bytes(guest.memory)[PAGE:])
            ctypes.memset(guest.address + PAGE, 0xEE, PAGE)
            guest.regions[1, REGION_ADDRESS] = ctypes.addressof(high)
            guest.write("HHH", AVAIL_GPA, 0, 1, 0)
            assert pop(guest, guest.device(indirect=True)) == [(table[0][0], table[0][1], 2), (-1, 0xFFFF_FFFF, 2)]


def test_an_indirect_descriptor_that_was_not_negotiated_is_an_error() -> None:
    """2.7.5.3.1: only with VIRTIO_F_INDIRECT_DESC."""
    assert one_element([(TABLE_GPA, 16, 4, 0)], [(1, 1, 0, 0)], indirect=False) == ring.INDIRECT_NOT_NEGOTIATED


def test_direct_descriptors_before_an_indirect_one_are_allowed() -> None:
    """2.7.5.3.2: the device must handle a chain that ends in an indirect table, and ignore WRITE on that descriptor."""
    table = [(7, 70, 1, 2), (0, 0, 0, 0), (9, 90, 2, 0)]
    assert one_element([(5, 50, 3, 3), *[(0, 0, 0, 0)] * 2, (TABLE_GPA, 48, 6, 0)], table) == [
        (5, 50, 2),
        (7, 70, 0),
        (9, 90, 2),
    ]


def test_a_chain_may_be_as_long_as_the_queue() -> None:
    """The longest chain without a loop has every descriptor once."""
    descs = [(i, i, 1 if i < SIZE - 1 else 0, i + 1) for i in range(SIZE)]
    assert one_element(descs, []) == [(i, i, 0) for i in range(SIZE)]


def test_an_element_may_describe_as_many_bytes_as_the_rules_allow() -> None:
    """2.7.5.2: 2^32 bytes in all, and not one more."""
    descs = [(1, 2**32 - 1, 3, 1), (2, 1, 2, 0)]
    assert one_element(descs, []) == [(1, 2**32 - 1, 2), (2, 1, 2)]


def test_addresses_from_the_upper_half_come_out_negative() -> None:
    """A gpa of 2^63 or more is negative, so that find_region refuses it; a length is never negative."""
    assert one_element([(1 << 63, 2**32 - 1, 2, 0)], []) == [(-(1 << 63), 2**32 - 1, 2)]


@pytest.mark.parametrize("idx", [SIZE + 1, 65535])
def test_an_available_idx_that_cannot_be_is_an_error(idx: int) -> None:
    """More entries than the queue holds, or an idx that went back."""
    with Guest() as guest:
        guest.write("HH", AVAIL_GPA, 0, idx)
        assert pop(guest, guest.device(indirect=False)) == ring.AVAIL_IDX


def test_more_elements_than_descriptors_cannot_be_outstanding() -> None:
    """A driver that goes on publishing while the device holds the whole queue is caught."""
    with Guest() as guest:
        device = guest.device(indirect=False)
        guest.write("HH", AVAIL_GPA, 0, SIZE)
        for _ in range(SIZE):
            assert pop(guest, device) == [(0, 0, 0)]
        guest.write("H", AVAIL_GPA + 2, SIZE + 1)
        assert pop(guest, device) == ring.AVAIL_IDX
        device.push(0, 0)
        assert pop(guest, device) == [(0, 0, 0)]


@pytest.mark.parametrize("head", [SIZE, 65535])
def test_a_head_outside_the_table_is_an_error(head: int) -> None:
    """An available ring entry names a descriptor of the table."""
    with Guest() as guest:
        guest.write("HHH", AVAIL_GPA, 0, 1, head)
        assert pop(guest, guest.device(indirect=False)) == ring.HEAD_RANGE
