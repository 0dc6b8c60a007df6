"""Guest memory on hugetlbfs: a huge page goes when all of it is out, and nothing that is in use ever does."""

import contextlib
import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagetide import linux
from pagetide.host.device.balloon import FEATURES
from pagetide.host.memory.discard import punch_next
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.huge_pages import close_books, huge_page_bytes, take_back
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.ranges import RANGE_END, RANGE_START
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.region_map import WHOLE
from pagetide.memory.residency import resident_bytes
from pagetide.virtio.balloon import Feature, Queue
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.device.queue_rig import QueueRig
from tests.host.guest_ring import GPA, PAGE
from tests.host.memory.file_guest import ranges_of
from tests.needed import lacking

pytestmark = pytest.mark.xdist_group("huge pages")

HUGE = 2 << 20
UNIT = HUGE // PAGE
UNITS = 4
AT = 1 << 40
FIRST = (AT - GPA) // PAGE
"""The first page of a huge region, counted from where rings are."""


class Huge:
    """A region of UNITS huge pages, all of which the guest has written to, and the account of one queue."""

    def __init__(self, offset_bytes: int = 0, size_bytes: int = UNITS * HUGE) -> None:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        os.ftruncate(fd, UNITS * HUGE)
        self.ram = GuestRam(fd, UNITS * HUGE)
        self.ram.words[:: PAGE // 8] = 1
        self.memory = GuestMemory()
        self.memory.add(MemoryRegion(AT, size_bytes, AT, offset_bytes), os.dup(fd))
        self.ledger = Ledger()

    def __enter__(self) -> "Huge":
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()
        self.ram.close()

    def name(self, start: int, end: int, *, keep: bool) -> None:
        """Inflate (`keep`) or report the pages `start … end` of the region."""
        ranges = ranges_of((AT + start * PAGE, AT + end * PAGE, 0))
        while ranges[0, RANGE_START] < ranges[0, RANGE_END]:
            assert punch_next(self.memory.region_map.table, ranges, 0, WHOLE, int(keep), 1, self.ledger.words) == 0

    def deflate(self, pages: range) -> None:
        """Give pages back to the guest."""
        ranges = ranges_of(*((AT + page * PAGE, AT + (page + 1) * PAGE, 0) for page in pages))
        take_back(self.memory.region_map.table, ranges, len(pages))

    def told(self, *names: str) -> list[int]:
        """Words of the account, in pages."""
        return [self.ledger.snapshot()[name + "_bytes"] // PAGE for name in names]

    @property
    def held_pages(self) -> int:
        """What the host holds."""
        return resident_bytes(self.ram.fd) // PAGE


@pytest.mark.usefixtures("huge_pages")
def test_inflated_parts_make_up_a_huge_page() -> None:
    """Partial until the last part is out, then all of it is discarded, and verified; over and over."""
    with Huge() as huge:
        huge.name(UNIT, UNIT + 256, keep=True)
        assert huge.told("skipped_partial", "discarded", "reported") == [256, 0, 256]
        huge.name(UNIT + 256, 2 * UNIT, keep=True)
        assert huge.held_pages == 3 * UNIT
        assert huge.told("skipped_partial", "discarded", "verified", "reported") == [0, UNIT, UNIT, UNIT]
        huge.deflate(range(UNIT + 7, UNIT + 8))
        huge.ram.words[(UNIT + 7) * PAGE // 8] = 5
        assert huge.held_pages == 4 * UNIT
        huge.name(UNIT + 8, UNIT + 9, keep=True)  # it is out already, and the page beside it is the guest's
        assert huge.ram.words[(UNIT + 7) * PAGE // 8] == 5
        huge.name(UNIT + 7, UNIT + 8, keep=True)
        assert huge.held_pages == 3 * UNIT


@pytest.mark.usefixtures("huge_pages")
def test_reports_are_joined_with_what_is_out_only() -> None:
    """Halves that are reported one after the other are the guest's again in between, and stay."""
    with Huge() as huge:
        huge.name(0, 256, keep=False)
        huge.name(256, UNIT, keep=False)
        assert huge.held_pages == 4 * UNIT
        assert huge.told("skipped_partial", "discarded") == [UNIT, 0]
        huge.name(UNIT, UNIT + 500, keep=True)
        huge.name(UNIT + 500, 3 * UNIT + 5, keep=False)  # the rest of one, one whole, and a part
        assert huge.held_pages == 2 * UNIT
        assert huge.told("discarded") == [12 + UNIT]
        huge.ram.words[UNIT * PAGE // 8 :: PAGE // 8] = 1
        huge.name(UNIT, UNIT + 1, keep=True)  # of the page's reported part nothing is out any more
        assert huge.held_pages == 4 * UNIT


@pytest.mark.usefixtures("huge_pages")
def test_a_huge_page_that_is_not_all_in_the_region_stays() -> None:
    """A region that begins and ends within huge pages gives back those that it has whole."""
    with Huge(offset_bytes=PAGE, size_bytes=2 * HUGE) as huge:
        huge.name(0, 2 * UNIT, keep=True)
        assert huge.held_pages == 3 * UNIT
        assert huge.ram.words[0] == 1
        assert huge.ram.words[2 * HUGE // 8] == 1
        assert huge.told("discarded", "skipped_partial") == [UNIT, UNIT]


@pytest.mark.usefixtures("huge_pages")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["inflate", "inflate", "deflate", "report", "close"]),
            st.integers(0, 3),
            st.integers(1, 3),
            st.sampled_from([0, 0, 0, 0, 1, -1]),
        ),
        min_size=4,
        max_size=30,
    )
)
def test_nothing_in_use_is_ever_lost(actions: list[tuple[str, int, int, int]]) -> None:
    """Against a plain model: what the guest has is as it wrote it, and what is all out is gone; the account adds up."""
    pages = UNITS * UNIT
    with Huge() as huge:
        stamps = huge.ram.words[:: PAGE // 8]
        out: set[int] = set()
        fresh = np.zeros(pages, bool)
        for number, (action, half, halves, skew) in enumerate(actions, 2):
            start = min(max(0, half * 256 + skew), pages - 1)
            end = min(start + halves * 256, pages)
            named = set(range(start, end))
            if action == "inflate":
                huge.name(start, end, keep=True)
                out |= named
                gone = out
            elif action == "report":
                huge.name(start, end, keep=False)
                gone = out | named
            elif action == "deflate":
                huge.deflate(range(start, end))
                out -= named
                gone = set()
            else:
                close_books(huge.memory.region_map.table)
                out, gone = set(), set()
            touched = {page // UNIT for page in named}
            whole = {u for u in touched if gone >= set(range(u * UNIT, (u + 1) * UNIT))}
            held = huge.held_pages
            for unit in range(UNITS):
                if unit in whole:
                    assert not stamps[unit * UNIT : (unit + 1) * UNIT].any()
            assert held <= pages - len(whole) * UNIT
            mine = np.array([page for page in range(pages) if page not in gone and page not in out], np.int64)
            if number > 2 and len(mine):
                lost = mine[(stamps[mine] == 0) & ~fresh[mine]]
                assert not len(lost), f"pages {lost[:4]} were the guest's"
            # The guest uses all that it has.
            fresh = np.zeros(pages, bool)
            fresh[list(out)] = True
            stamps[~fresh] = number
        told = huge.ledger.snapshot()
        assert told["reported_bytes"] == told["discarded_bytes"] + told["skipped_partial_bytes"]
        assert told["discarded_bytes"] >= told["checked_bytes"] >= told["verified_bytes"]
        assert told["skipped_partial_bytes"] >= 0


@pytest.mark.usefixtures("huge_pages")
def test_a_new_driver_has_all_its_pages() -> None:
    """What was inflated before a reset, or before a queue begins anew, makes up no huge page with what comes after."""
    for reset in (True, False):
        with QueueRig(Queue.INFLATE) as rig, Huge() as huge:
            rig.memory.add(MemoryRegion(AT, UNITS * HUGE, AT, 0), os.dup(huge.ram.fd))
            rig.put_pfns(range(FIRST, FIRST + 256))
            rig.process()
            rig.restart()  # where it stood: the same driver
            rig.put_pfns(range(FIRST + 256, FIRST + 512))
            rig.process()
            assert huge.held_pages == 3 * UNIT
            rig.put_pfns(range(FIRST + 512, FIRST + 768))
            rig.process()
            rig.device.queues.stop(rig.index)
            if reset:
                rig.device.reset()
            rig.guest.reset_driver()
            rig.device.start_queue(rig.index, rig.guest.queue_place, 0, int(FEATURES))
            rig.put_pfns(range(FIRST + 768, FIRST + 1024))
            rig.process()
            assert huge.held_pages == 3 * UNIT
            assert huge.ram.words[(512 * PAGE) // 8] == 1


class Ballooned:
    """A guest with huge pages of its own, of which all but the last page of the first are in the balloon."""

    def __init__(self, features: int) -> None:
        self.rigs = contextlib.ExitStack()
        self.rig = self.rigs.enter_context(QueueRig(Queue.INFLATE, features=features))
        self.huge = self.rigs.enter_context(Huge())
        self.rig.memory.add(MemoryRegion(AT, UNITS * HUGE, AT, 0), os.dup(self.huge.ram.fd))
        self.inflate(range(UNIT - 1))
        assert self.huge.held_pages == UNITS * UNIT

    def inflate(self, pages: range) -> None:
        """In one element, which is given back."""
        self.rig.put_pfns([FIRST + page for page in pages])
        self.rig.process()
        assert self.rig.used() == 1

    def use(self, page: int) -> None:
        """The guest writes to a page."""
        self.huge.ram.words[page * PAGE // 8] = 77

    def kept(self, page: int) -> bool:
        """Whether that is still there."""
        return bool(self.huge.ram.words[page * PAGE // 8] == 77)


MUST_TELL = int(FEATURES)
MAY_TELL_LATER = int(FEATURES & ~Feature.MUST_TELL_HOST)


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize(("features", "kept"), [(MAY_TELL_LATER, True), (MUST_TELL, False)])
def test_who_need_not_tell_uses_pages_before_it_asks(reported: bool, features: int, kept: bool) -> None:
    """A page that is used and not yet deflated survives the last part's inflation, or report, without MUST_TELL_HOST.

    With the feature a driver must not do this; that the page is lost then shows that the test can fail.
    """
    ballooned = Ballooned(features)
    with ballooned.rigs:
        ballooned.use(3)
        if reported:
            ranges = ranges_of((AT + (UNIT - 1) * PAGE, AT + UNIT * PAGE, 0))
            regions = ballooned.rig.memory.region_map.table
            assert punch_next(regions, ranges, 0, WHOLE, 0, 1, Ledger().words) == 0
        else:
            ballooned.inflate(range(UNIT - 1, UNIT))
        assert ballooned.kept(3) == kept


@pytest.mark.usefixtures("huge_pages")
def test_without_the_promise_a_huge_page_goes_in_one_element() -> None:
    """What an element names whole needs no book: it is discarded whatever was negotiated."""
    ballooned = Ballooned(MAY_TELL_LATER)
    with ballooned.rigs:
        ballooned.inflate(range(UNIT, 2 * UNIT))
        assert ballooned.huge.held_pages == (UNITS - 1) * UNIT
        ballooned.inflate(range(UNIT - 1, UNIT))
        assert ballooned.huge.held_pages == (UNITS - 1) * UNIT


def test_files_of_small_pages_need_no_book(tmp_path: Path) -> None:
    """Pages of a memfd, of a huge tmpfs and of a disk's file are given back one by one."""
    for fd in (os.memfd_create("small"), os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)):
        assert huge_page_bytes(fd) == PAGE
        os.close(fd)


@pytest.mark.usefixtures("a_gigantic_page")
def test_halves_of_a_page_of_a_gib_are_joined() -> None:
    """Pages of 1 GiB are hugetlbfs's, too: nothing goes before all of one is out, and then all of it, verified."""
    gib, half = 1 << 30, (1 << 29) // PAGE
    fd = os.memfd_create("gigantic", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_1GB)
    os.ftruncate(fd, gib)
    assert huge_page_bytes(fd) == gib
    memory, ledger = GuestMemory(), Ledger()
    memory.add(MemoryRegion(AT, gib, AT, 0), os.dup(fd))
    try:
        ctypes.memset(memory.address_of(AT, 8), 1, 8)
        assert resident_bytes(fd) == gib
        for number, gone in enumerate((0, gib)):
            ranges = ranges_of((AT + number * half * PAGE, AT + (number + 1) * half * PAGE, 0))
            while ranges[0, RANGE_START] < ranges[0, RANGE_END]:
                assert punch_next(memory.region_map.table, ranges, 0, WHOLE, 1, 1, ledger.words) == 0
            assert resident_bytes(fd) == gib - gone
            assert ledger.snapshot()["verified_bytes"] == gone
            assert ledger.snapshot()["skipped_partial_bytes"] == (gib // 2 if gone == 0 else 0)
    finally:
        memory.close()
        os.close(fd)


_MADV_COLLAPSE = 25  # include/uapi/asm-generic/mman-common.h; whatever shmem_enabled says


def _huge_pages_behind(address: int) -> int:
    """How much of the mapping at an address is in huge pages of shared memory, by smaps."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            return next(int(word.split()[1]) << 10 for word in lines if word.startswith("ShmemPmdMapped"))
    pytest.fail("there is no such mapping")


def test_a_part_of_a_transparent_huge_page_behind_a_memfd_goes_alone() -> None:
    """THP in a memfd, as memory-backend-memfd has it where the kernel gives some: pages are given back one by one."""
    with GuestRam.create(2 * HUGE, "memfd") as ram:
        ram.words[:: PAGE // 8] = 1
        with contextlib.suppress(OSError):  # a kernel before 6.1, or one without THP
            linux.madvise(ram.address, 2 * HUGE, _MADV_COLLAPSE)
        if _huge_pages_behind(ram.address) != 2 * HUGE:
            lacking("the kernel gives a memfd no huge pages (MADV_COLLAPSE, Linux 6.1)")
        assert huge_page_bytes(ram.fd) == PAGE
        memory, ledger = GuestMemory(), Ledger()
        memory.add(MemoryRegion(AT, 2 * HUGE, AT, 0), os.dup(ram.fd))
        for start, end in ((7, 8), (100, 300), (UNIT, 2 * UNIT)):
            ranges = ranges_of((AT + start * PAGE, AT + end * PAGE, 0))
            while ranges[0, RANGE_START] < ranges[0, RANGE_END]:
                assert punch_next(memory.region_map.table, ranges, 0, WHOLE, 1, 1, ledger.words) == 0
        told = ledger.snapshot()
        assert told["verified_bytes"] == told["discarded_bytes"] == 201 * PAGE + HUGE
        assert resident_bytes(ram.fd) == HUGE - 201 * PAGE
        stamps = ram.words[: HUGE // 8 : PAGE // 8]
        assert np.flatnonzero(stamps == 0).tolist() == [7, *range(100, 300)]
        memory.close()


@pytest.mark.usefixtures("hugetmpfs")
def test_a_part_of_a_huge_page_of_tmpfs_goes_alone() -> None:
    """The kernel splits a huge page of tmpfs of which a part is punched; what stays is intact."""
    with GuestRam.create(2 * HUGE, "hugetmpfs") as ram:
        assert huge_page_bytes(ram.fd) == PAGE
        ram.words[:: PAGE // 8] = 1
        memory = GuestMemory()
        memory.add(MemoryRegion(AT, 2 * HUGE, AT, 0), os.dup(ram.fd))
        ledger = Ledger()
        ranges = ranges_of((AT + PAGE, AT + HUGE - PAGE, 0))
        while ranges[0, RANGE_START] < ranges[0, RANGE_END]:
            assert punch_next(memory.region_map.table, ranges, 0, WHOLE, 1, 1, ledger.words) == 0
        told = ledger.snapshot()
        assert told["verified_bytes"] == told["discarded_bytes"] == HUGE - 2 * PAGE
        assert resident_bytes(ram.fd) == HUGE + 2 * PAGE
        assert ram.words[0] == ram.words[(HUGE - PAGE) // 8] == 1
        memory.close()
