"""An error for this guest, or a correct answer; never anything else, never outside its memory: every queue, any ring.

The memory file has pages around and between the guest's two regions that are not the guest's: canaries. All of it is
compared with what a plain-Python model (hostile_model.py) says must be there.
"""

import contextlib
import os

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.queues.place import QueuePlace
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.memory.region_map import REGION_BYTES
from pagetide.virtio.balloon import CONFIG_POISON_VAL, STAT, Queue, queues
from pagetide.virtio.split_ring.ring import RingError
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.device.hostile_model import (
    ARRAY,
    AVAIL,
    DESC,
    END,
    FILE_PAGES,
    GPA,
    PAGE,
    REGIONS,
    SIZE,
    TABLES,
    USED,
    Case,
    Descriptor,
    Model,
    features_of,
    pieces_of,
    reads_used,
)

pytestmark = pytest.mark.slow

USER = 0x7000_0000_0000
_DONT_CARE = ((USED, 2), (USED + 4 + 8 * SIZE, 2))
"""Flags and avail_event: a device may ask for kicks as it likes."""

EDGE = 0x120 * PAGE
"""Where one region ends and the other begins."""
ADDRESSES = st.one_of(
    st.sampled_from([ARRAY, ARRAY + 1, ARRAY + 4, *TABLES, EDGE - PAGE, EDGE, END - PAGE, END - 4, END, GPA - PAGE, 0]),
    st.integers(0x0FE, 0x13A).map(lambda pfn: pfn * PAGE),
    st.sampled_from([(1 << 64) - PAGE, 1 << 63, (1 << 63) - PAGE, (1 << 64) - 16, GPA + 8, DESC, USED]),
)
LENGTHS = st.one_of(
    st.sampled_from([PAGE, 2 * PAGE, 16 * PAGE, 64, 16, 8, 4, 10, 0, 6, 4097, 20, 4100, 16384, 0xFFFF_FFFF, 1 << 31]),
    st.integers(0, 1 << 32).map(lambda length: min(length, 0xFFFF_FFFF)),
)
FLAGS = st.sampled_from([0, 0, 2, 2, 1, 3, 3, 1, 4, 4, 6, 5, 0xFFF8])
NEXTS = st.one_of(st.integers(0, SIZE - 1), st.sampled_from([SIZE, 65535]))
DESCRIPTORS = st.tuples(ADDRESSES, LENGTHS, FLAGS, NEXTS)
GOOD = st.tuples(
    st.one_of(st.integers(0x106, 0x136).map(lambda pfn: pfn * PAGE), st.sampled_from([EDGE - PAGE, EDGE, END - PAGE])),
    st.sampled_from([PAGE, 2 * PAGE]),
    st.just(2),
    NEXTS,
)
ARRAYS = st.tuples(
    st.sampled_from([ARRAY, ARRAY, ARRAY, EDGE - 6]), st.sampled_from([4, 8, 20, 64, 10, 30]), st.just(0), NEXTS
)
PFNS = st.one_of(st.integers(0x0FF, 0x138), st.sampled_from([0, 0xFFFF_FFFF, 0x8000_0000]))
BUFFERS = st.one_of(
    st.lists(PFNS, min_size=1, max_size=16).map(lambda pfns: b"".join(pfn.to_bytes(4, "little") for pfn in pfns)),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, (1 << 64) - 1)), min_size=1, max_size=6).map(
        lambda entries: b"".join(STAT.pack(*entry) for entry in entries)
    ),
)


SEARCH = settings(max_examples=3000, database=None, phases=[hypothesis.Phase.generate])
"""To find one case, however large."""


def cases(kind: Queue, *, indirect: bool | None = None) -> st.SearchStrategy[Case]:
    """Anything that a guest can write, most of it nearly right."""
    descriptors = st.one_of(DESCRIPTORS, GOOD, ARRAYS)
    return st.builds(
        Case,
        kind=st.just(kind),
        descs=st.lists(descriptors, min_size=SIZE, max_size=SIZE),
        tables=st.lists(st.lists(descriptors, min_size=4, max_size=4), min_size=3, max_size=3),
        heads=st.lists(st.one_of(st.integers(0, SIZE - 1), st.sampled_from([SIZE, 65535])), max_size=SIZE),
        idx=st.one_of(st.integers(0, SIZE), st.integers(0, 65535)),
        array=BUFFERS,
        event_idx=st.booleans(),
        indirect=st.booleans() if indirect is None else st.just(indirect),
        inhibited=st.sampled_from([False, False, False, True]),
        poison=st.sampled_from([0, 0, 0, 0xAA]),
        budget=st.integers(1, 10),
    )


class Hosted:
    """A memory file with a guest in its middle, and the guest's device."""

    def __init__(self, image: bytearray) -> None:
        self.fd = os.memfd_create("hostile-guest")
        os.pwrite(self.fd, image, 0)
        self.memory = GuestMemory()
        for pfn, page, pages in REGIONS:
            region = MemoryRegion(pfn * PAGE, pages * PAGE, USER + pfn * PAGE, page * PAGE)
            self.memory.add(region, os.dup(self.fd))
        self.ledger = Ledger()
        self.device = BalloonDevice(self.memory, self.ledger)

    def image(self) -> bytearray:
        """All memory as it is."""
        return bytearray(os.pread(self.fd, FILE_PAGES * PAGE, 0))

    def close(self) -> None:
        """Give everything back."""
        self.memory.close()
        os.close(self.fd)


def served(hosted: Hosted, case: Case) -> int | None:
    """Have the device serve the ring to its end; the error, if any."""
    features = features_of(case)
    index = queues(features).index(case.kind)
    hosted.device.config.write(CONFIG_POISON_VAL, case.poison.to_bytes(4, "little"))
    hosted.device.inhibited = case.inhibited
    hosted.device.start_queue(index, QueuePlace(SIZE, USER + DESC, USER + AVAIL, USER + USED), 0, features)
    try:
        turns = 0
        while hosted.device.process(index, case.budget).more:
            turns += 1
            assert turns <= 2 * SIZE, "a ring without new elements ends"
    except RingError as error:
        return error.code
    return None


def differing(image: bytearray, other: bytearray) -> list[int]:
    """The pages in which two images differ."""
    starts = range(0, FILE_PAGES * PAGE, PAGE)
    return [start // PAGE for start in starts if image[start : start + PAGE] != other[start : start + PAGE]]


def deviations(case: Case, *, broken: bool = False) -> list[str]:
    """How a device's answer differs from the model's.

    Args:
        case: what the guest wrote.
        broken: let the region map say that the first region is a page longer than it is.
    """
    model = Model(case)
    hosted = Hosted(model.image)
    if broken:
        hosted.memory.region_map.table[0, REGION_BYTES] += PAGE
    try:
        answer = model.run()
        error = served(hosted, case)
        image = hosted.image()
    finally:
        hosted.close()
    for gpa, length in _DONT_CARE:
        ((place, _),) = pieces_of(gpa, length)
        model.image[place : place + length] = image[place : place + length] = bytes(length)
    untold = ("punches", "returned_bytes")  # how many calls, and what was still there after others, is the device's own
    told = hosted.ledger.snapshot()
    counts = {name: count for name, count in told.items() if count and not name.endswith(untold)}
    found = [
        f"more of the {queue or 'reported '}memory returned than gone"
        for queue in ("", "inflate_", "deflate_")
        if told[f"{queue}returned_bytes"] > told[f"{queue}verified_bytes"]
    ]
    if error != answer.error:
        found.append(f"answers {error}, not {answer.error}")
    if counts != {name: count for name, count in answer.counts.items() if count}:
        found.append(f"counts {counts}, not {answer.counts}")
    knows = error is None and not reads_used(case)  # of a broken queue's nothing is known
    if knows and hosted.device.statistics != answer.statistics:
        found.append(f"knows {hosted.device.statistics}, not {answer.statistics}")
    if image != model.image:
        found.append(f"memory differs in pages {differing(image, model.image)}")
    return found


@pytest.mark.parametrize("kind", Queue)
def test_any_ring_gets_an_error_or_the_right_answer(kind: Queue) -> None:
    """Every byte of memory, every word of the ledger and the error are the model's; no canary is touched."""

    @settings(deadline=None, max_examples=250)
    @given(cases(kind))
    def holds(case: Case) -> None:
        assert deviations(case) == []

    holds()


def _sound(case: Case) -> bool:
    model = Model(case)
    return model.run().error is None and model.last >= 2


@pytest.mark.parametrize("kind", Queue)
def test_the_rings_are_not_all_broken_at_once(kind: Queue) -> None:
    """Among what is tried are rings that are served to their end, of two elements at least."""
    hypothesis.find(cases(kind), _sound, settings=SEARCH)


def test_a_region_map_that_lets_a_range_cross_is_found_out() -> None:
    """The test can fail: with a lookup that takes a region for a page longer, a ring is found that does harm."""
    wrong = hypothesis.find(
        cases(Queue.REPORTING, indirect=False),
        lambda case: any("memory differs" in deviation for deviation in deviations(case, broken=True)),
        settings=SEARCH,
    )
    assert deviations(wrong) == []


@settings(deadline=None, max_examples=200)
@given(
    case=st.one_of(*(cases(kind) for kind in Queue)),
    places=st.lists(
        st.one_of(
            st.integers(0, 60).map(lambda step: GPA + step * 16),
            st.sampled_from(
                [EDGE - 16, EDGE - 128, END - 64, END - 16, END, 0, (1 << 64) - 16 - USER, DESC, AVAIL, USED]
            ),
        ),
        min_size=3,
        max_size=3,
    ),
    other=st.lists(st.sampled_from([DESC, AVAIL, USED, END - 256, EDGE - 64, END]), min_size=3, max_size=3),
)
def test_rings_anywhere_and_moved_under_the_device_do_no_harm(case: Case, places: list[int], other: list[int]) -> None:
    """Parts that overlap, cross or leave regions, or move in between: refused, or served within the guest's memory."""
    model = Model(case)
    hosted = Hosted(model.image)
    features = features_of(case)
    index = queues(features).index(case.kind)
    try:
        for start in (places, other):
            with contextlib.suppress(GuestMemoryError, ValueError, RingError):
                hosted.device.queues.stop(index)
                hosted.device.start_queue(index, QueuePlace(SIZE, *(USER + gpa for gpa in start)), 0, features)
                for _ in range(2 * SIZE):
                    if not hosted.device.process(index, case.budget).more:
                        break
        image = hosted.image()
    finally:
        hosted.close()
    mine = {page + n for _, page, pages in REGIONS for n in range(pages)}
    assert set(differing(image, model.image)) <= mine


def _only(kind: Queue, descs: list[Descriptor], array: bytes = b"\0" * 4) -> Case:
    return Case(kind, [*descs, *[(0, 0, 0, 0)] * (SIZE - len(descs))], [[(0, 0, 0, 0)] * 4] * 3, [0], 1, array,
                event_idx=False, indirect=True, inhibited=False, poison=0, budget=4)  # fmt: skip


@pytest.mark.parametrize("kind", Queue)
@pytest.mark.parametrize(
    "descs",
    [
        [(ARRAY, 4, 1, 1), (ARRAY, 4, 1, 0)],
        [(ARRAY, 4, 1, SIZE)],
        [(TABLES[0], 64, 4, 0)],
        [(EDGE - 32, 64, 4, 0)],
        [(EDGE - 36, 64, 4, 0)],
        [(EDGE - PAGE, 2 * PAGE, 2, 0)],
        [(END - PAGE, 2 * PAGE, 2, 0)],
        [((1 << 64) - PAGE, 2 * PAGE, 2, 0)],
        [(EDGE - 2, 4, 0, 0)],
        [(END - 4, 8, 0, 0)],
    ],
    ids=[
        "loop",
        "next",
        "empty table",
        "crossing table",
        "within a descriptor",
        "crossing",
        "leaving",
        "wrapping",
        "crossing array",
        "array",
    ],
)
def test_the_known_tricks(kind: Queue, descs: list[Descriptor]) -> None:
    """Each of them on each queue."""
    assert deviations(_only(kind, descs)) == []
