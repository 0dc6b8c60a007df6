"""The burst application's operations."""

import numpy as np
import pytest

from pagetide.guest.vcpu import ALLOCATE, FREE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.burst import Burst
from pagetide.workload.phases import allocated_bytes


def burst_of(eat_bytes: int = 64 << 20, bursts: int = 2, vcpus: int = 2, seed: int = 1) -> Burst:
    """A small burst workload."""
    return Burst(eat_bytes=eat_bytes, bursts=bursts, hold_s=1.0, vcpus=vcpus, seed=seed)


@pytest.mark.parametrize("vcpus", [1, 2, 3])
@pytest.mark.parametrize("eat_bytes", [1 << 20, 64 << 20, (64 << 20) + 12 * PAGE_SIZE_BYTES])
def test_it_eats_what_it_is_to_eat(eat_bytes: int, vcpus: int) -> None:
    """All vCPUs together eat the whole amount, short of less than a page for each."""
    for phase in burst_of(eat_bytes, vcpus=vcpus).phases[::2]:
        eaten = sum(map(allocated_bytes, phase.operations))
        assert eat_bytes - vcpus * PAGE_SIZE_BYTES < eaten <= eat_bytes


def test_every_burst_frees_all_that_it_ate() -> None:
    """Each slot is filled once with a block of some order, and freed once with the same order, in the same order."""
    workload = burst_of()
    for eat, release in zip(workload.phases[::2], workload.phases[1::2], strict=True):
        assert (eat.eats, release.eats, release.settle) == (True, False, True)
        for ate, freed in zip(eat.operations, release.operations, strict=True):
            assert set(ate["kind"]) == {ALLOCATE}
            assert set(freed["kind"]) == {FREE}
            assert np.array_equal(ate[["order", "slot"]], freed[["order", "slot"]])
            assert len(set(ate["slot"])) == len(ate) <= workload.slots


def test_the_same_seed_gives_the_same_operations_and_another_one_does_not() -> None:
    """A run can be repeated from its seed."""
    first, same, other = (burst_of(seed=seed).phases[0].operations[0] for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_half_of_the_memory_is_eaten_in_huge_pages() -> None:
    """2 MiB blocks hold half of it, single pages a quarter."""
    orders = burst_of(256 << 20, vcpus=1).phases[0].operations[0]["order"]
    pages = {order: int((orders == order).sum()) << order for order in (0, 9)}
    assert pages[9] == 128 << 20 >> 12
    assert pages[0] == 64 << 20 >> 12
