"""The system calls: what they do on this kernel, and how they fail."""

import errno
import os
import re
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from pagetide import linux
from pagetide.processes import process_cpu_s, set_parent_death_signal

pytestmark = pytest.mark.jit  # no kernel is called

PAGE = 4096
FULL = (1 << 64) - 2  # the highest an eventfd counts, eventfd(2)


@pytest.fixture
def memory() -> Iterator[int]:
    """A memory file of 16 pages, all of them written."""
    fd = linux.memfd_create("test")
    os.write(fd, b"x" * 16 * PAGE)
    yield fd
    os.close(fd)


@pytest.fixture
def mapping(memory: int) -> Iterator[int]:
    """That file, mapped and shared."""
    address = linux.mmap(0, 16 * PAGE, linux.PROT_READ | linux.PROT_WRITE, linux.MAP_SHARED, memory)
    yield address
    linux.munmap(address, 16 * PAGE)


def ended_pid() -> int:
    """The id of a process that has ended and been waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


NOT_OPEN = 1 << 20
FAILURES: list[tuple[str, int, Callable[[], object]]] = [
    ("memfd_create", errno.EINVAL, lambda: linux.memfd_create("x" * 300)),
    ("fcntl(F_ADD_SEALS)", errno.EBADF, lambda: linux.add_seals(NOT_OPEN, linux.SEAL_GROW)),
    ("ftruncate", errno.EBADF, lambda: linux.ftruncate(NOT_OPEN, PAGE)),
    ("fallocate", errno.EBADF, lambda: linux.punch_hole(NOT_OPEN, 0, PAGE)),
    ("mmap", errno.EBADF, lambda: linux.mmap(0, PAGE, linux.PROT_READ, linux.MAP_SHARED, NOT_OPEN)),
    ("munmap", errno.EINVAL, lambda: linux.munmap(1, PAGE)),
    ("madvise", errno.EINVAL, lambda: linux.madvise(1, PAGE, linux.MADV_DONTNEED)),
    ("mincore", errno.EINVAL, lambda: linux.mincore(1, PAGE)),
    ("read of an eventfd", errno.EBADF, lambda: linux.eventfd_read(NOT_OPEN)),
    ("write to an eventfd", errno.EBADF, lambda: linux.eventfd_write(NOT_OPEN)),
    ("prctl(PR_SET_PDEATHSIG)", errno.EINVAL, lambda: set_parent_death_signal(9999)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "number", "attempt"), FAILURES, ids=[call for call, _, _ in FAILURES])
def test_a_failure_says_which_call_failed(call: str, number: int, attempt: Callable[[], object]) -> None:
    """Each call fails with an OSError that has errno, the call's name, and the system's words for it."""
    with pytest.raises(OSError, match=f"{re.escape(call)}: {os.strerror(number)}") as caught:
        attempt()
    assert caught.value.errno == number


def test_no_descriptor_left_is_said_by_name() -> None:
    """A process that may open no more descriptors is told that it was eventfd that failed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match=r"eventfd: Too many open files"):
            linux.eventfd()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_punched_hole_reads_as_zeros_and_the_rest_stays(memory: int) -> None:
    """A hole frees exactly its pages, leaves the size alone, and its neighbours intact."""
    linux.punch_hole(memory, 4 * PAGE, 8 * PAGE)
    status = os.fstat(memory)
    assert (status.st_size, status.st_blocks * 512) == (16 * PAGE, 8 * PAGE)
    assert os.pread(memory, 16 * PAGE, 0) == b"x" * 4 * PAGE + bytes(8 * PAGE) + b"x" * 4 * PAGE


def test_a_sealed_file_keeps_its_size_and_can_have_holes(memory: int) -> None:
    """Seals against shrinking and growing forbid ftruncate, and not hole punching."""
    linux.add_seals(memory, linux.SEAL_SHRINK | linux.SEAL_GROW)
    for size_bytes in (0, 32 * PAGE):
        with pytest.raises(PermissionError, match=r"ftruncate: Operation not permitted"):
            linux.ftruncate(memory, size_bytes)
    linux.punch_hole(memory, 0, 16 * PAGE)
    assert os.fstat(memory).st_blocks == 0


def test_dontneed_on_a_shared_mapping_frees_nothing(memory: int, mapping: int) -> None:
    """MADV_DONTNEED on a shared mapping succeeds, yet the file keeps every page; a punch frees them."""
    linux.madvise(mapping, 16 * PAGE, linux.MADV_DONTNEED)
    assert os.fstat(memory).st_blocks * 512 == 16 * PAGE
    assert os.pread(memory, 1, 0) == b"x"
    linux.punch_hole(memory, 0, 16 * PAGE)
    assert os.fstat(memory).st_blocks == 0


def test_mincore_tells_pages_apart(memory: int, mapping: int) -> None:
    """The answer comes page by page, with the holes not resident."""
    linux.punch_hole(memory, PAGE, 2 * PAGE)
    assert [byte & 1 for byte in linux.mincore(mapping, 16 * PAGE)] == [1, 0, 0, *[1] * 13]


def test_unmapped_memory_is_gone(memory: int) -> None:
    """What was unmapped is no longer in the address space."""
    address = linux.mmap(0, PAGE, linux.PROT_READ, linux.MAP_SHARED, memory)
    assert linux.mincore(address, PAGE)
    linux.munmap(address, PAGE)
    with pytest.raises(OSError, match=r"mincore: Cannot allocate memory"):  # ENOMEM: not mapped, mincore(2)
        linux.mincore(address, PAGE)


def test_an_eventfd_adds_up_and_empties() -> None:
    """Signals add up until they are read; an empty eventfd reads as 0 at once."""
    fd = linux.eventfd()
    try:
        assert linux.eventfd_read(fd) == 0
        linux.eventfd_write(fd)
        linux.eventfd_write(fd, 41)
        assert linux.eventfd_read(fd) == 42
        assert linux.eventfd_read(fd) == 0
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_full_eventfd_neither_blocks_nor_fails() -> None:
    """Signalling an eventfd that a peer has filled returns at once and leaves it as it is."""
    fd = linux.eventfd()
    try:
        linux.eventfd_write(fd, FULL)
        linux.eventfd_write(fd)
        assert linux.eventfd_read(fd) == FULL
    finally:
        os.close(fd)


def test_a_child_dies_with_its_parent() -> None:
    """A process that asked for it gets the signal when its parent is killed."""
    child = """
import os, signal, sys
from pagetide.processes import set_parent_death_signal
set_parent_death_signal(signal.SIGKILL)
os.write(int(sys.argv[1]), b"ready")
signal.pause()
"""
    parent = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]], pass_fds=[int(sys.argv[2])])"
    )
    alive, held = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", parent, child, str(held)], pass_fds=[held])
    os.close(held)
    try:
        assert os.read(alive, 5) == b"ready"
        process.kill()
        process.wait()
        assert select.select([alive], [], [], 10)[0], "the child outlived its parent"
        assert os.read(alive, 1) == b""
    finally:
        os.close(alive)


def test_a_process_is_charged_for_its_work() -> None:
    """CPU time of a process grows by what it computes, to better than a clock tick."""
    before_s = process_cpu_s(os.getpid())
    worked_s = -time.process_time()
    sum(range(300_000))
    worked_s += time.process_time()
    after_s = process_cpu_s(os.getpid())
    assert before_s is not None
    assert after_s is not None
    assert worked_s <= after_s - before_s < worked_s + 0.01


def test_a_process_that_is_gone_has_no_cpu_time() -> None:
    """None is the answer for a process that has ended and been waited for."""
    assert process_cpu_s(ended_pid()) is None
