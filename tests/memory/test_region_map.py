"""The region map: what lies where, and that nothing else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.memory.region_map import Region, RegionMap, find_region

LOW = Region(gpa=0x1000, size_bytes=0x4000, fd=7, offset_bytes=0x2000, address=0x10000)
HIGH = Region(gpa=0x5000, size_bytes=0x1000, fd=8, offset_bytes=0, address=0x80000)
APART = Region(gpa=1 << 32, size_bytes=1 << 30, fd=9, offset_bytes=1 << 20, address=1 << 40)
BEYOND = 1 << 63
ANY_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.fixture
def regions() -> RegionMap:
    """Two regions side by side and one far above, given out of order."""
    return RegionMap([APART, LOW, HIGH])


def test_an_address_is_found_in_its_file(regions: RegionMap) -> None:
    """A range is answered with the descriptor and the offset of its region."""
    assert regions.locate(0x1000, 0x4000) == (7, 0x2000)
    assert regions.locate(0x4FFF, 1) == (7, 0x5FFF)
    assert regions.locate(0x5000, 0x1000) == (8, 0)
    assert regions.locate((1 << 32) + 5, 1) == (9, (1 << 20) + 5)


@pytest.mark.parametrize(
    ("gpa", "length_bytes"),
    [
        (0, 1),
        (0xFFF, 2),
        (0x4FFF, 2),  # from one region into its neighbour
        (0x6000, 1),
        (0x5FFF, 2),
        (0x1000, 0),
        (0x1000, -1),
        (-1, 1),
        (0x1000, BEYOND - 1),  # would wrap around
        (BEYOND - 1, BEYOND - 1),
        (BEYOND, 1),
        (0x1000, BEYOND),
        ((1 << 64) - 1, 2),
    ],
)
def test_what_is_not_in_one_region_is_nowhere(regions: RegionMap, gpa: int, length_bytes: int) -> None:
    """Empty, negative, wrapping, crossing or outside: no place, whatever the numbers."""
    assert regions.locate(gpa, length_bytes) is None


def test_a_guest_without_regions_has_no_memory() -> None:
    """An empty map finds nothing."""
    assert RegionMap([]).locate(0, 1) is None


@given(gpa=ANY_INT64, length_bytes=ANY_INT64)
def test_every_int64_is_safe(gpa: int, length_bytes: int) -> None:
    """For any address and length, the answer is what exact arithmetic says."""
    regions = [LOW, HIGH, APART, Region(BEYOND - 4096, 4095, 3, 0, 0)]
    inside = [
        row
        for row, region in enumerate(regions)
        if length_bytes >= 1 and region.gpa <= gpa and gpa + length_bytes <= region.gpa + region.size_bytes
    ]
    assert find_region(RegionMap(regions).table, gpa, length_bytes) == (inside[0] if inside else -1)


@given(st.data())
def test_a_range_within_a_region_is_found(data: st.DataObject) -> None:
    """Whatever lies in a region is found there, to the last byte."""
    region = data.draw(st.sampled_from([LOW, HIGH, APART]))
    start = data.draw(st.integers(0, region.size_bytes - 1))
    length_bytes = data.draw(st.integers(1, region.size_bytes - start))
    where = RegionMap([APART, LOW, HIGH]).locate(region.gpa + start, length_bytes)
    assert where == (region.fd, region.offset_bytes + start)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([LOW, LOW._replace(gpa=0x4FFF)], "overlaps"),
        ([LOW, LOW], "overlaps"),
        ([LOW._replace(size_bytes=0)], "empty or too high"),
        ([LOW._replace(size_bytes=-1)], "empty or too high"),
        ([LOW._replace(gpa=-1)], "empty or too high"),
        ([LOW._replace(gpa=BEYOND - 0x4000)], "empty or too high"),
        ([LOW._replace(size_bytes=(1 << 64) - 0x1000)], "empty or too high"),
        ([LOW._replace(offset_bytes=(1 << 64) - 0x1000)], "empty or too high"),
        ([LOW._replace(address=(1 << 64) - 0x1000)], "empty or too high"),
    ],
)
def test_impossible_regions_are_refused(regions: list[Region], message: str) -> None:
    """Regions that are empty, overlap, or reach beyond 2^63 anywhere are refused before any is used."""
    with pytest.raises(ValueError, match=message):
        RegionMap(regions)


def test_the_table_is_what_kernels_expect(regions: RegionMap) -> None:
    """The table is int64 and sorted by guest-physical address."""
    assert regions.table.dtype == np.int64
    assert regions.table.tolist() == [list(LOW), list(HIGH), list(APART)]


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.integers(0, 1 << 20)), max_size=600), st.data())
def test_many_regions_answer_as_a_plain_search_does(gaps: list[tuple[int, int]], data: st.DataObject) -> None:
    """However many regions there are, and wherever their holes, what is found is what looking at each of them finds."""
    regions, end = [], 0
    for size_bytes, gap_bytes in gaps:
        regions.append(Region(end + gap_bytes, size_bytes, 3, 0, 0))
        end += gap_bytes + size_bytes
    gpa = data.draw(st.integers(-1, end + 1))
    length_bytes = data.draw(st.integers(0, 1 << 21))
    inside = [
        row
        for row, region in enumerate(regions)
        if length_bytes and region.gpa <= gpa and gpa + length_bytes <= region.gpa + region.size_bytes
    ]
    assert find_region(RegionMap(regions).table, gpa, length_bytes) == (inside[0] if inside else -1)
