"""What the host holds of a guest's memory, in RAM and in swap, on real swap space; and a punch frees both."""

import ctypes
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pagetide import linux
from pagetide.host.memory.held import STEP_NS, Held, HeldLook
from pagetide.memory.residency import resident_bytes
from pagetide.virtio.balloon import Queue
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.device.queue_rig import QueueRig
from tests.host.guest.served_guest import TIMEOUT_S
from tests.host.guest_ring import GPA, PAGE

pytestmark = pytest.mark.alone

MIB = 1 << 20
PAGES = 16 * MIB // PAGE
SWAP_BYTES = 64 * MIB
_CAP_SYS_ADMIN = 1 << 21
_libc = ctypes.CDLL(None, use_errno=True)


def _why_no_swap() -> str | None:
    """The probe: why this machine truly cannot have swap space of a test's own; None if it should."""
    if not Path("/proc/swaps").exists():
        return "the kernel is built without swap"
    status = Path("/proc/self/status").read_text()
    capabilities = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return None if capabilities & _CAP_SYS_ADMIN else "swapon(2) is for CAP_SYS_ADMIN"


def _call(name: str, *arguments: bytes | int) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


@pytest.fixture(scope="module")
def swap() -> Iterator[Path]:
    """Swap space for these tests, and none of it afterwards. CI must have it, unless the probe says that it cannot."""
    why = _why_no_swap()
    if why is not None:
        pytest.skip(f"no swap can be had: {why}; the arithmetic is tested without")
    mkswap = shutil.which("mkswap", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert mkswap is not None, "mkswap (util-linux) is needed"
    handle, name = tempfile.mkstemp(prefix="pagetide-test-swap-", dir="/var/tmp")  # /tmp may be a tmpfs
    path = Path(name)
    try:
        os.posix_fallocate(handle, 0, SWAP_BYTES)
        subprocess.run([mkswap, "--quiet", name], check=True)
        try:
            _call("swapon", os.fsencode(name), 0)
        except OSError as error:
            if os.environ.get("CI") and error.errno != errno.EPERM:  # EPERM: CAP_SYS_ADMIN of a user namespace only
                raise
            pytest.skip(f"no swap can be had: {error}; the arithmetic is tested without")
        try:
            yield path
        finally:
            _call("swapoff", os.fsencode(name))
    finally:
        os.close(handle)
        path.unlink()


def _swap_used_bytes(swap: Path) -> int:
    (line,) = (line for line in Path("/proc/swaps").read_text().splitlines() if line.startswith(str(swap)))
    return int(line.split()[3]) * 1024


def _page_out(rig: QueueRig, first: int, pages: int, swap: Path) -> None:
    """Have the kernel swap out these pages of the guest's, and prove by the swap space's own account that it has.

    mincore(2) cannot: it goes on finding them in the swap cache, which is RAM, until that is reclaimed, too.
    """
    wanted_bytes = _swap_used_bytes(swap) + pages * PAGE
    for _ in range(50):
        linux.madvise(rig.guest.ram.address + first * PAGE, pages * PAGE, linux.MADV_PAGEOUT)
        if _swap_used_bytes(swap) == wanted_bytes:
            return
    pytest.fail("the kernel does not swap out what MADV_PAGEOUT names")


def _await_written() -> None:
    """Wait until nothing is being written out: the kernel keeps the space of such a page until it next reclaims."""
    end_s = time.monotonic() + TIMEOUT_S
    while _writeback_pages() > 0:
        assert time.monotonic() < end_s, "there is always something being written out"
        time.sleep(0.001)


def _writeback_pages() -> int:
    Path("/proc/sys/vm/stat_refresh").write_text("1")  # or each processor keeps up to a hundred pages to itself
    return int(
        next(line for line in Path("/proc/vmstat").read_text().splitlines() if line[:13] == "nr_writeback ")[13:]
    )


def _held(look: HeldLook, regions: Sequence[tuple[MemoryRegion, int]]) -> Held:
    """The answer once all is counted."""
    while (held := look.step(regions)).counting:
        pass
    return held


@pytest.mark.parametrize("kind", [Queue.REPORTING, Queue.INFLATE])
def test_a_punch_frees_swap_and_is_verified(swap: Path, kind: Queue) -> None:
    """Of 16 MiB 4 are swapped out, and then given back: neither RAM nor swap space holds them afterwards."""
    first, pages = 2048, 1024
    with QueueRig(kind, pages=PAGES) as rig:
        look = HeldLook(lambda: 0)
        assert _held(look, rig.memory.regions) == Held(PAGES * PAGE, 0)
        before_bytes = _swap_used_bytes(swap)
        _page_out(rig, first, pages, swap)
        assert _held(look, rig.memory.regions) == Held((PAGES - pages) * PAGE, pages * PAGE)
        assert resident_bytes(rig.guest.ram.fd) == PAGES * PAGE, "st_blocks counts swapped pages, too"
        _await_written()
        if kind == Queue.REPORTING:
            rig.add([(GPA + first * PAGE, pages * PAGE)], writable=True)
        else:
            rig.put_pfns(range(first, first + pages))
        rig.process()
        assert rig.used() == 1
        assert _held(look, rig.memory.regions) == Held((PAGES - pages) * PAGE, 0)
        prefix = "inflate_" if kind == Queue.INFLATE else ""
        assert [rig.word(f"{prefix}{word}_bytes") for word in ("discarded", "verified")] == [pages * PAGE] * 2
        assert _swap_used_bytes(swap) <= before_bytes


def test_what_stays_in_swap_is_not_verified_as_gone(swap: Path) -> None:
    """A page that is swapped out is held, and the guest's bytes come back from there: other pages are given back."""
    first, pages = 2048, 256
    with QueueRig(Queue.REPORTING, pages=PAGES) as rig:
        look = HeldLook(lambda: 0)
        _page_out(rig, first, pages, swap)
        rig.add([(GPA + (first + pages // 2) * PAGE, pages // 2 * PAGE)], writable=True)
        rig.process()
        assert _held(look, rig.memory.regions) == Held((PAGES - pages) * PAGE, pages // 2 * PAGE)
        word = first * PAGE // 8
        assert rig.guest.ram.words[word] == word
        assert rig.guest.ram.words[word + pages // 2 * PAGE // 8] == 0


def _files(*sizes_bytes: int) -> list[int]:
    fds = [linux.memfd_create("test-held") for _ in sizes_bytes]
    for fd, size_bytes in zip(fds, sizes_bytes, strict=True):
        linux.ftruncate(fd, size_bytes)
    return fds


Told = Callable[[tuple[int, int]], list[tuple[int, int, int]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A kernel that has something swapped out, and answers this for every part; what it was asked."""

    def begin(pages: tuple[int, int]) -> list[tuple[int, int, int]]:
        asked: list[tuple[int, int, int]] = []

        def cachestat(fd: int, offset_bytes: int, length_bytes: int) -> tuple[int, int]:
            asked.append((fd, offset_bytes, length_bytes))
            return pages

        monkeypatch.setattr(linux, "swap_is_used", lambda: True)
        monkeypatch.setattr(linux, "cachestat", cachestat)
        return asked

    return begin


def test_each_byte_of_a_file_is_counted_once(told: Told) -> None:
    """Regions of one file that touch or overlap are one part; a part that nobody shares is not asked about."""
    asked = told((5, 3))
    one, other = _files(64 * MIB, 8 * MIB)
    try:
        places = [(one, 0, 16), (one, 16, 8), (one, 20, 8), (one, 40, 8), (other, 0, 8)]
        regions = [(MemoryRegion(at * MIB, size * MIB, 0, at * MIB), fd) for fd, at, size in places]
        assert _held(HeldLook(lambda: 0), regions) == Held(15 * PAGE, 9 * PAGE)
        assert sorted(asked) == sorted([(one, 0, 28 * MIB), (one, 40 * MIB, 8 * MIB), (other, 0, 8 * MIB)])
    finally:
        os.close(one)
        os.close(other)


def test_a_step_is_short_and_the_next_one_goes_on(
    told: Told,
) -> None:
    """A piece takes 6 ms here: two a step; memory that comes meanwhile begins the count anew."""
    asked = told((5, 3))
    (fd,) = _files(2048 * MIB)

    def clock_ns() -> int:
        return len(asked) * 6_000_000

    try:
        look = HeldLook(clock_ns)
        regions = [(MemoryRegion(GPA, 1024 * MIB, 0, 0), fd)]
        assert STEP_NS == 10_000_000
        assert look.step(regions).counting
        assert len(asked) == 2
        assert look.step(regions) == Held(4 * 5 * PAGE, 4 * 3 * PAGE)
        assert look.step(regions).counting, "anew"
        regions.append((MemoryRegion(2 * GPA, 512 * MIB, 0, 1024 * MIB), fd))
        before = len(asked)
        assert _held(look, regions) == Held(6 * 5 * PAGE, 6 * 3 * PAGE)
        assert len(asked) - before == 6
    finally:
        os.close(fd)


def test_nothing_is_counted_where_nothing_is_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then `st_blocks` has the answer, also on a kernel without cachestat(2)."""
    monkeypatch.setattr(linux, "swap_is_used", lambda: False)
    monkeypatch.setattr(linux, "cachestat", None)
    (fd,) = _files(8 * MIB)
    try:
        os.pwrite(fd, b"x" * 3 * PAGE, 5 * PAGE)
        assert HeldLook(lambda: 0).step([(MemoryRegion(GPA, 8 * MIB, 0, 0), fd)]) == Held(3 * PAGE, 0)
    finally:
        os.close(fd)


def test_a_kernel_that_cannot_tell_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.5 there is no cachestat(2); both figures are null then, with the reason."""

    def refuse(*_part: int) -> tuple[int, int]:
        raise OSError(errno.ENOSYS, "cachestat: Function not implemented")

    monkeypatch.setattr(linux, "swap_is_used", lambda: True)
    monkeypatch.setattr(linux, "cachestat", refuse)
    (fd,) = _files(8 * MIB)
    try:
        held = HeldLook(lambda: 0).step([(MemoryRegion(GPA, 8 * MIB, 0, 0), fd)])
        assert (held.resident_bytes, held.swapped_bytes, held.counting) == (None, None, False)
        assert "cachestat: Function not implemented" in str(held.why)
    finally:
        os.close(fd)


def test_memory_on_a_disk_is_said_to_be_there() -> None:
    """What is not in RAM of such a file is in the file, and `st_blocks` says nothing of RAM."""
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        if linux.filesystem_type(file.fileno()) == linux.TMPFS_MAGIC:
            pytest.skip("/var/tmp is no disk here")
        file.truncate(8 * MIB)
        held = HeldLook(lambda: 0).step([(MemoryRegion(GPA, 8 * MIB, 0, 0), file.fileno())])
        assert held.resident_bytes is None
        assert "on a disk" in str(held.why)


def test_memory_on_hugetlbfs_is_never_swapped() -> None:
    """What is resident is known of whole files, as `st_blocks` is of a file."""
    fd = os.memfd_create("test-held", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    try:
        os.ftruncate(fd, 8 * MIB)
        whole, part = (MemoryRegion(GPA, size * MIB, 0, 0) for size in (8, 4))
        assert HeldLook(lambda: 0).step([(whole, fd)]) == Held(0, 0)
        held = HeldLook(lambda: 0).step([(part, fd)])
        assert (held.resident_bytes, held.swapped_bytes) == (None, 0)
        assert "hugetlbfs" in str(held.why)
    finally:
        os.close(fd)
