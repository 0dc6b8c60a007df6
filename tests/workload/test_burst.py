"""The burst application's operations."""

import numpy as np
import pytest

from pagetide.guest.allocator.operation import ALLOCATE, FREE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.burst import REST_S, burst
from pagetide.workload.stream import Stream

MIX = {9: 0.5, 4: 0.125, 2: 0.125, 0: 0.25}


def burst_of(eat_bytes: int = 64 << 20, bursts: int = 2, vcpus: int = 2, seed: int = 1) -> Stream:
    """A small burst workload."""
    return burst(eat_bytes=eat_bytes, bursts=bursts, hold_s=1.0, vcpus=vcpus, mix=MIX, seed=seed).whole()


@pytest.mark.parametrize("vcpus", [1, 2, 3])
@pytest.mark.parametrize("eat_bytes", [1 << 20, 64 << 20, (64 << 20) + 12 * PAGE_SIZE_BYTES])
def test_it_eats_what_it_is_to_eat(eat_bytes: int, vcpus: int) -> None:
    """All vCPUs together eat the whole amount, short of less than a page for each."""
    stream = burst_of(eat_bytes, vcpus=vcpus)
    for stretch in stream.stretches[::2]:
        assert eat_bytes - vcpus * PAGE_SIZE_BYTES < stretch.allocated_bytes <= eat_bytes


def test_every_burst_frees_all_that_it_ate() -> None:
    """Each slot is filled once with a block of some order, and freed once with the same order, in the same order."""
    stream = burst_of()
    ends = [mark.first for mark in stream.marks[2::2]] + [stream.nr_operations]
    for eat, release, end in zip(stream.marks[::2], stream.marks[1::2], ends, strict=True):
        assert (eat.eats, release.eats, release.settle) == (True, False, True)
        ate, freed = slice(eat.first, release.first), slice(release.first, end)
        assert set(stream.kind[ate]) == {ALLOCATE}
        assert set(stream.kind[freed]) == {FREE}
        for column in (stream.order, stream.slot, stream.vcpu):
            assert np.array_equal(column[ate], column[freed])
    stream.check()


def test_it_holds_for_as_long_as_it_is_to() -> None:
    """On the stream's clock, which stands still while a burst eats or frees, only holding and resting take time."""
    stream = burst_of()
    assert [stretch.from_s for stretch in stream.stretches] == [0.0, 0.0, 1.0, 1.0 + REST_S]
    assert [stretch.until_s for stretch in stream.stretches] == [0.0, 1.0, 1.0 + REST_S, 2.0 + REST_S]
    assert stream.end_s == 2 * (1.0 + REST_S)


def test_a_set_rest_is_the_same_for_every_design() -> None:
    """With a rest of its own a burst waits for no design: the next one comes when the clock says so."""
    stream = burst(eat_bytes=4 << 20, bursts=2, hold_s=1.0, vcpus=2, mix=MIX, seed=1, rest_s=9.0).whole()
    assert not any(mark.settle for mark in stream.marks)
    assert [stretch.until_s for stretch in stream.stretches] == [0.0, 1.0, 10.0, 11.0]
    assert stream.end_s == 20.0
    stream.check()


def test_the_same_seed_gives_the_same_operations_and_another_one_does_not() -> None:
    """A run can be repeated from its seed."""
    first, same, other = (burst_of(seed=seed).order for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_half_of_the_memory_is_eaten_in_huge_pages() -> None:
    """2 MiB blocks hold half of it, single pages a quarter."""
    stream = burst_of(256 << 20, vcpus=1)
    orders = stream.order[: stream.marks[1].first]
    pages = {order: int((orders == order).sum()) << order for order in (0, 9)}
    assert pages[9] == 128 << 20 >> 12
    assert pages[0] == 64 << 20 >> 12
