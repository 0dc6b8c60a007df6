"""How much memory a guest has, by what it shares, what is populated and what it tells."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.host.memory.ram_size import ram_bytes, shared_files
from pagetide.memory.region_map import Region, RegionMap

pytestmark = pytest.mark.jit  # no kernel is called

MIB, GIB = 1 << 20, 1 << 30
_SIZES = st.integers(0, 64).map(lambda blocks: blocks * 128 * MIB)
_FILES = st.lists(st.tuples(_SIZES, _SIZES), max_size=6)


@pytest.mark.parametrize(
    ("files", "own_bytes", "expected"),
    [
        ([(GIB, 300 * MIB)], None, GIB),
        ([(GIB, 0)], None, GIB),  # nothing is populated yet: nothing is known
        ([(GIB, 300 * MIB)], 970 * MIB, GIB),
        ([(64 * MIB, 30 * MIB)], 20 * MIB, 64 * MIB),
        ([(4 * GIB, GIB)], 3600 * MIB, 4 * GIB),  # a crash kernel's part is the guest's, too
        ([(GIB, 300 * MIB), (8 * GIB, 0)], None, GIB),  # a virtio-mem device, of which nothing is plugged
        ([(GIB, 300 * MIB), (8 * GIB, 0)], 970 * MIB, GIB),
        ([(GIB, 300 * MIB), (8 * GIB, GIB)], 2900 * MIB, 2900 * MIB),  # 2 GiB are plugged
        ([(GIB, 300 * MIB), (8 * GIB, 3 * GIB)], 970 * MIB, 3372 * MIB),  # statistics of before they were
        ([(GIB, 300 * MIB), (GIB, 0)], 1970 * MIB, 2 * GIB),  # a DIMM that the guest has not touched yet
        ([(GIB, 300 * MIB)], 1 << 60, GIB),
        ([(GIB, 300 * MIB)], 0, 300 * MIB),
        ([], 970 * MIB, 0),
    ],
)
def test_the_memory_that_a_guest_has(files: list[tuple[int, int]], own_bytes: int | None, expected: int) -> None:
    """What is not plugged does not count, and what a kernel keeps for itself does."""
    assert ram_bytes(files, own_bytes) == expected


@given(_FILES, st.one_of(st.none(), _SIZES))
def test_a_guest_has_no_more_than_it_shares_and_no_less_than_it_uses(
    files: list[tuple[int, int]], own_bytes: int | None
) -> None:
    """Whatever it tells: at least what is populated, and its own total if that can be."""
    found = ram_bytes(files, own_bytes)
    assert found <= sum(shared for shared, _ in files)
    assert found >= sum(min(file) for file in files)
    assert own_bytes is None or found >= min(own_bytes, sum(shared for shared, _ in files))


def test_regions_of_one_file_are_one() -> None:
    """Two regions around a hole below 1 MiB, of one file, and a file that holds nothing."""
    fds = [os.memfd_create("ram"), os.memfd_create("virtio-mem")]
    for fd in fds:
        os.truncate(fd, 4 * MIB)
    os.pwrite(fds[0], b"x", MIB)
    again = os.dup(fds[0])
    table = RegionMap(
        [
            Region(0, MIB, fds[0], 0, 0),
            Region(2 * MIB, 3 * MIB, again, MIB, 0),
            Region(GIB, 4 * MIB, fds[1], 0, 0),
            Region(2 * GIB, MIB, -5, 0, 0),
        ]
    ).table
    assert sorted(shared_files(table)) == [(MIB, MIB), (4 * MIB, 0), (4 * MIB, 4096)]
    assert shared_files(np.zeros((0, table.shape[1]), np.int64)) == []
    for fd in (*fds, again):
        os.close(fd)
