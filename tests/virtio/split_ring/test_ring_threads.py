"""Both halves of the split virtqueue on two threads at once, compiled and without the GIL."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pagetide.atomics import atomic_add, atomic_load, monotonic_ns, sched_yield, store_i64, store_u16
from pagetide.jit import kernel
from pagetide.virtio.split_ring.device import (
    LAST_AVAIL,
    POPPED_HEAD,
    arm_kick,
    disarm_kick,
    pop_element,
    publish_used,
    push_used,
)
from pagetide.virtio.split_ring.driver import USED_LENGTH, add_element, arm_call, disarm_call, publish, take_used
from pagetide.virtio.split_ring.ring import (
    AGAIN,
    CHAIN_LOOPS,
    DESC_F_WRITE,
    INDIRECT_NESTED,
    INDIRECT_WITH_NEXT,
    NEXT_RANGE,
    RING_IDX,
    TABLE_LENGTH,
    TABLE_OUTSIDE,
)
from tests.virtio.split_ring.hostile_guest import AVAIL_GPA, DESC_GPA, GPA, SIZE, Guest
from tests.virtio.split_ring.ring_pair import RingPair, make_pair

pytestmark = [pytest.mark.jit, pytest.mark.alone]

ELEMENTS = 100_000
WAIT_NS_MAX = 20 * 10**9
KICK, CALL, ABORT = 0, 16, 32  # bells: counters, each on a cache line of its own
LOST = -101
WRONG = -102


@kernel
def wait_for(bells: Any, bell: int, heard: int) -> int:
    """Sleep until the bell has rung since `heard`; LOST if it never does: the other side owed a notification."""
    deadline_ns = monotonic_ns() + WAIT_NS_MAX
    while atomic_load(bells, bell) == heard:
        if atomic_load(bells, ABORT) != 0 or monotonic_ns() > deadline_ns:
            return LOST
        sched_yield()
    return 0


@kernel
def buffers_of(sequence: int, room: int) -> int:
    """How many buffers element number `sequence` has."""
    return 1 + sequence * 7 % room


@kernel
def drive(state: Any, bells: Any, gpas: Any, lengths: Any, room: int) -> int:
    """Send all elements in batches and take all of them back; asleep whenever there is nothing to do."""
    sent = taken = 0
    while taken < ELEMENTS:
        full = sent == ELEMENTS
        while not full:
            count = buffers_of(sent, room)
            for i in range(count):
                gpas[i] = sent * 64 + i
                lengths[i] = sent + i
            head = add_element(state, gpas, lengths, count, sent & 1)
            if head < AGAIN:
                return head
            full = head == AGAIN
            if not full:
                sent += 1
                full = sent == ELEMENTS
            if (full or sent % 5 == 0) and publish(state):
                atomic_add(bells, KICK, 1)
        disarm_call(state)
        head = take_used(state)
        while head >= 0:
            if state[USED_LENGTH] != taken:
                return WRONG
            taken += 1
            head = take_used(state)
        if head < AGAIN:
            return head
        heard = atomic_load(bells, CALL)
        if taken < sent and arm_call(state) == 0 and wait_for(bells, CALL, heard) < 0:
            return LOST
    return taken


@kernel
def serve(state: Any, bells: Any, regions: Any, gpas: Any, lengths: Any, flags: Any, room: int) -> int:
    """Receive all elements, check order and content, give each back; asleep whenever there is nothing to do."""
    received = 0
    while received < ELEMENTS:
        disarm_kick(state)
        count = pop_element(state, regions, gpas, lengths, flags)
        while count > 0:
            if count != buffers_of(received, room):
                return WRONG
            for i in range(count):
                if gpas[i] != received * 64 + i or lengths[i] != received + i or flags[i] != (received & 1) * 2:
                    return WRONG
            push_used(state, state[POPPED_HEAD], received)
            received += 1
            if received % 3 == 0 and publish_used(state):
                atomic_add(bells, CALL, 1)
            count = pop_element(state, regions, gpas, lengths, flags)
        if count < 0:
            return count
        if publish_used(state):
            atomic_add(bells, CALL, 1)
        heard = atomic_load(bells, KICK)
        if received < ELEMENTS and arm_kick(state) == 0 and wait_for(bells, KICK, heard) < 0:
            return LOST
    return received


def run_both(pair: RingPair, room: int) -> tuple[int, int]:
    """What the two threads answer: the number of elements, or the code of what went wrong."""
    bells = np.zeros(48, np.int64)
    gpas, lengths = np.zeros((2, 64), np.int64)
    device = pair.device
    arrays = device.gpas, device.lengths, device.flags

    def half(run: Any, *arguments: Any) -> int:
        answer = WRONG
        try:
            answer = int(run(*arguments, room))
        finally:
            bells[ABORT] += answer < 0
        return answer

    with ThreadPoolExecutor(2) as pool:
        driver = pool.submit(half, drive, pair.driver.state, bells, gpas, lengths)
        served = pool.submit(half, serve, device.state, bells, pair.memory.regions, *arrays)
        return driver.result(), served.result()


@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize(("size", "table_descs"), [(1, 0), (8, 0), (8, 8), (128, 32)])
def test_two_threads_lose_nothing(event_idx: bool, size: int, table_descs: int) -> None:
    """100 000 elements, enough to wrap all indices, arrive in order and whole, and no kick or call is lost."""
    pair = make_pair(size, event_idx=event_idx, table_descs=table_descs)
    assert run_both(pair, min(size, table_descs or size)) == (ELEMENTS, ELEMENTS)
    assert pair.driver.free_descs == size


@kernel
def scribble(address: int, table_gpa: int, bells: Any) -> int:
    """Write pseudo-random descriptors over 16 consecutive ones until told to stop: addresses, lengths, flags, next."""
    noise = 88172645463325252
    written = 0
    while atomic_load(bells, ABORT) == 0 and written < 1 << 34:
        noise ^= noise << 13
        noise ^= noise >> 7 & 0x01FF_FFFF_FFFF_FFFF
        noise ^= noise << 17
        place = address + (noise & 15) * 16
        after = 0xFFFF if noise >> 8 & 31 == 0 else noise >> 8 & 7
        length = 0xFFFF_FFF0 if noise >> 13 & 31 == 0 else (noise >> 13 & 7) * 16
        store_i64(place, -16 if noise >> 20 & 31 == 0 else table_gpa)
        store_i64(place + 8, length | (noise >> 30 & 7) << 32 | after << 48)
        written += 1
    return written


@kernel
def pop_under_fire(
    state: Any, regions: Any, gpas: Any, lengths: Any, flags: Any, avail: int, pops: int, seen: Any
) -> int:
    """Pop this often whatever is there and count each answer in `seen`; WRONG if one is neither count nor error."""
    for _ in range(pops):
        store_u16(avail + RING_IDX, state[LAST_AVAIL] + 1 & 0xFFFF)
        answer = pop_element(state, regions, gpas, lengths, flags)
        if answer < TABLE_OUTSIDE or answer == 0 or answer > gpas.shape[0]:
            return WRONG
        seen[max(-answer, 0)] += 1
        if answer > 0:
            for i in range(answer):
                if lengths[i] < 0 or flags[i] & ~DESC_F_WRITE:
                    return WRONG
            push_used(state, state[POPPED_HEAD], 0)
    return pops


def test_a_driver_that_rewrites_descriptors_all_the_time_does_no_harm() -> None:
    """Descriptors that change between check and use never lead outside guest memory, which is fenced by guard pages."""
    bells, seen = np.zeros(48, np.int64), np.zeros(-TABLE_OUTSIDE + 1, np.int64)
    wanted = [
        0,
        -CHAIN_LOOPS,
        -NEXT_RANGE,
        -INDIRECT_WITH_NEXT,
        -INDIRECT_NESTED,
        -TABLE_LENGTH,
        -TABLE_OUTSIDE,
    ]
    pops, batches_max = 100_000, 5000
    with Guest() as guest, ThreadPoolExecutor(1) as pool:
        device = guest.device(indirect=True)
        table_gpa = DESC_GPA + 16 * SIZE  # the second half of what is scribbled over
        assert table_gpa + 16 * SIZE <= AVAIL_GPA
        scribbler = pool.submit(scribble, guest.address + DESC_GPA - GPA, table_gpa, bells)
        avail = guest.address + AVAIL_GPA - GPA
        arrays = device.gpas, device.lengths, device.flags
        try:
            for batch in range(batches_max):
                assert pop_under_fire(device.state, guest.regions, *arrays, avail, pops, seen) == pops
                if batch >= 20 and seen[wanted].all():
                    break
        finally:
            bells[ABORT] = 1
        assert scribbler.result() > 1000
    assert seen[wanted].all()
