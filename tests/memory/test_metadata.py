"""A file of which only the metadata is kept, against a model with a set of pages for each of its bits."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.host.memory.presence import gone_bytes
from pagetide.host.memory.punch import punch_hole
from pagetide.memory.metadata import (
    HUGE_FAULTS,
    PUNCHED_PAGES,
    PUNCHES,
    REFAULTED_PAGES,
    REPEATED_PAGES,
    SMALL_FAULTS,
    SPLITS,
    WHOLE_UNITS,
    MetadataFile,
    count_ones,
    stamp_metadata,
    unstamped_pages,
)
from pagetide.units import PAGE_SIZE_BYTES

PAGES = 1024
HUGE_PAGES = 512


class Step(NamedTuple):
    """Stamp or punch some pages."""

    stamps: bool
    page: int
    length: int


def steps() -> st.SearchStrategy[list[Step]]:
    """A few of them, of any place and size."""
    step = st.tuples(st.booleans(), st.integers(0, PAGES - 1), st.one_of(st.integers(1, 70), st.integers(1, PAGES)))
    return st.lists(step.map(lambda s: Step(s[0], s[1], min(s[2], PAGES - s[1]))), max_size=8)


class Model:
    """The same with sets."""

    def __init__(self, *, huge: bool) -> None:
        self.huge = huge
        self.resident: set[int] = set()
        self.stamped: set[int] = set()
        self.ever: set[int] = set()
        self.untouched: set[int] = set()
        self.repeated = 0
        self.small = self.huge_faults = self.refaulted = 0
        self.units: set[int] = set()
        self.splits = self.whole_units = 0

    def stamp(self, pages: range) -> None:
        for page in pages:
            unit = set(range(page - page % HUGE_PAGES, page - page % HUGE_PAGES + HUGE_PAGES))
            if self.huge and not self.resident & unit:
                self.resident |= unit
                self.untouched -= unit
                self.huge_faults += 1
                self.units.add(page // HUGE_PAGES)
            elif page not in self.resident:
                self.resident.add(page)
                self.small += 1
            self.untouched.discard(page)
            self.refaulted += page in self.ever and page not in self.stamped
            self.stamped.add(page)
            self.ever.add(page)

    def punch(self, pages: range) -> int:
        """How many pages went that were not in a huge page that went whole."""
        small = len(self.resident & set(pages))
        for unit in {page // HUGE_PAGES for page in pages} & self.units:
            if set(range(unit * HUGE_PAGES, unit * HUGE_PAGES + HUGE_PAGES)) <= set(pages):
                self.whole_units += 1
                small -= HUGE_PAGES
            else:
                self.splits += 1
            self.units.remove(unit)
        self.resident -= set(pages)
        self.stamped -= set(pages)
        self.repeated += len(self.untouched & set(pages))
        self.untouched |= set(pages)
        return small


@pytest.mark.parametrize("huge", [False, True])
@given(steps=steps())
def test_it_keeps_what_a_file_would(huge: bool, steps: list[Step]) -> None:
    """Residency, faults, refaults, repeats and lost stamps are those of a set of pages, whatever is done."""
    file, model = MetadataFile(PAGES * PAGE_SIZE_BYTES, huge=huge), Model(huge=huge)
    for stamps, page, count in steps:
        pages = range(page, page + count)
        if stamps:
            stamp_metadata(file.address, page, count)
            model.stamp(pages)
        else:
            kind = count.bit_length() - 1
            calls, gone = file.words[PUNCHES], file.words[PUNCHED_PAGES + kind]
            assert punch_hole(file.fd, page * PAGE_SIZE_BYTES, count * PAGE_SIZE_BYTES) == 0
            assert file.words[PUNCHED_PAGES + kind] == gone + model.punch(pages)
            assert file.words[PUNCHES] == calls + 1
        assert file.resident_bytes == len(model.resident) * PAGE_SIZE_BYTES
        gone_pages = len(set(pages) - model.resident)
        assert gone_bytes(file.fd, page * PAGE_SIZE_BYTES, count * PAGE_SIZE_BYTES) == gone_pages * PAGE_SIZE_BYTES
        assert unstamped_pages(file.address, page, count) == len(set(pages) - model.stamped)
    words = (SMALL_FAULTS, HUGE_FAULTS, REFAULTED_PAGES, REPEATED_PAGES, SPLITS, WHOLE_UNITS)
    counts = [model.small, model.huge_faults, model.refaulted, model.repeated, model.splits, model.whole_units]
    assert [file.words[word] for word in words] == counts


@given(st.integers(0, 0xFFFF_FFFF))
def test_ones_are_counted(word: int) -> None:
    """The count of set bits is Python's own, for any 32 bits."""
    assert count_ones(word) == word.bit_count()
