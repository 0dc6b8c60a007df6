"""Which free ends which allocation: made-up events, and random ones against a model of single pages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagetide.machine.tracing.formats import ALLOC, DRAIN, FORK, FREE
from pagetide.machine.tracing.pages import Events
from pagetide.machine.tracing.pairing import BEFORE, Fit, chosen, pair

Row = tuple[int, ...]


def events_of(*rows: Row) -> Events:
    """Events of kind, value, order, process and flags; the last two may be missing."""
    kind, value, order, pid, flags = zip(*((*row, *(7, 0)[len(row) - 3 :]) for row in rows), strict=True)
    return Events(
        np.arange(len(rows), dtype=np.int64),
        np.array(kind, np.uint8),
        np.zeros(len(rows), np.uint16),
        np.array(flags, np.uint8),
        np.array(pid, np.int32),
        np.array(value, np.int64),
        np.array(order, np.uint8),
        np.zeros(len(rows), np.uint8),
    )


def lives_and_fit(*rows: Row) -> tuple[list[Row], dict[str, int]]:
    """Lives as birth, death and order, sorted, and what of the fit is not zero beside the totals."""
    pairs, fit = pair(events_of(*rows))
    lives: list[Row] = sorted(zip(pairs.born.tolist(), pairs.dies.tolist(), pairs.order.tolist(), strict=True))
    totals = ("allocations", "frees", "allocated_pages", "freed_pages")
    return lives, {name: count for name, count in fit._asdict().items() if count and name not in totals}


@pytest.mark.parametrize(
    ("rows", "lives", "fit"),
    [
        ([(ALLOC, 8, 3), (FREE, 8, 3)], [(0, 1, 3)], {"exact": 1}),
        ([(ALLOC, 8, 3)], [(0, 1, 3)], {}),
        ([(FREE, 8, 3)], [(BEFORE, 0, 3)], {"there_before": 1}),
        ([(ALLOC, 8, 1), (FREE, 8, 0), (FREE, 9, 0)], [(0, 1, 0), (0, 2, 0)], {"parts": 2}),
        ([(ALLOC, 8, 2), (FREE, 9, 0)], [(0, 1, 0), (0, 2, 0), (0, 2, 1)], {"parts": 1}),
        ([(ALLOC, 8, 0), (ALLOC, 9, 0), (FREE, 8, 1)], [(0, 2, 0), (1, 2, 0)], {"parts": 1}),
        ([(ALLOC, 8, 0), (FREE, 8, 1)], [(0, 1, 0), (BEFORE, 1, 0)], {"parts": 1}),
        ([(FREE, 8, 0), (FREE, 8, 0)], [(BEFORE, 0, 0)], {"there_before": 1, "unmatched": 1}),
        ([(ALLOC, 8, 0), (ALLOC, 8, 0)], [(0, 1, 0), (1, 2, 0)], {"overlaps": 1}),
        ([(ALLOC, -1, 0)], [], {"failed": 1}),
        ([(ALLOC, 8, 0), (DRAIN, 8, 0), (FREE, 8, 0)], [(0, 2, 0)], {"exact": 1}),
        ([(ALLOC, 2048, 11), (FREE, 2048, 11)], [(0, 1, 10), (0, 1, 10)], {"exact": 1}),
    ],
)
def test_each_way_to_be_freed(rows: list[Row], lives: list[Row], fit: dict[str, int]) -> None:
    """As allocated, in parts, in a larger block, from before, without an allocation, without a free."""
    assert lives_and_fit(*rows) == (sorted(lives), fit)


@given(
    st.lists(
        st.tuples(st.sampled_from([ALLOC, FREE]), st.integers(0, 31), st.integers(0, 4)).map(
            lambda row: (row[0], row[1] >> row[2] << row[2], row[2])
        ),
        min_size=1,
        max_size=40,
    )
)
def test_pages_live_as_a_model_of_single_pages_says(rows: list[Row]) -> None:
    """Whatever the events are, each page is born and dies as if it alone were followed."""
    owners: dict[int, int] = {}
    expected: list[tuple[int, int]] = []
    for event, (kind, start, order) in enumerate(rows):
        for page in range(start, start + (1 << order)):
            owner = owners.get(page, BEFORE)
            if owner >= 0 or (kind == FREE and owner == BEFORE):
                expected.append((owner, event))
            owners[page] = event if kind == ALLOC else -2
    expected += [(owner, len(rows)) for owner in owners.values() if owner >= 0]
    pairs, fit = pair(events_of(*rows))
    repeated = np.repeat(np.column_stack([pairs.born, pairs.dies]), 1 << pairs.order, axis=0)
    assert sorted(map(tuple, repeated.tolist())) == sorted(expected)
    assert fit.frees == fit.exact + fit.parts + fit.there_before + fit.unmatched


def test_many_parts_find_room() -> None:
    """Far more lives than events: blocks of the largest order, of which one page each is freed."""
    rows = [row for block in range(64) for row in ((ALLOC, block << 10, 10), (FREE, (block << 10) + 341, 0))]
    pairs, fit = pair(events_of(*rows))
    assert fit == Fit(64, 64, 0, 64, 0, 0, 0, 0, 64 << 10, 64)
    assert int((1 << pairs.order).sum()) == 64 << 10


def test_a_family_is_followed_through_its_forks() -> None:
    """Children of the recorder and theirs belong; whoever takes over a process id does not, nor does an interrupt."""
    own, child, grandchild, stranger = 5, 6, 7, 8
    softirq = 0x10
    events = events_of(
        (ALLOC, 1, 0, own),
        (FORK, child, 0, own),
        (ALLOC, 2, 0, child),
        (FORK, grandchild, 0, child),
        (ALLOC, 3, 0, grandchild),
        (ALLOC, 4, 0, grandchild, softirq),
        (ALLOC, 5, 0, stranger),
        (FORK, child, 0, stranger),
        (ALLOC, 6, 0, child),
    )
    family = chosen(events, own, family=True)
    assert events.value[family & (events.kind == ALLOC)].tolist() == [2, 3]
    others = chosen(events, own, family=False)
    assert events.value[others & (events.kind == ALLOC)].tolist() == [2, 3, 4, 5, 6]
