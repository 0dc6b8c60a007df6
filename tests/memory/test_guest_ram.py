"""Guest RAM on real memory: its mapping, its guards, and what is said when it cannot be had."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pagetide import linux
from pagetide.memory import guest_ram
from pagetide.memory.available import total_bytes
from pagetide.memory.guest_ram import ALIGN_BYTES, Backing, GuestRam, GuestRamError, create_ram_file
from pagetide.memory.residency import resident_bytes

pytestmark = pytest.mark.jit  # no kernel is called

PAGE = 4096
SIZE = 8 << 20


def test_new_ram_is_zeros_and_costs_nothing(backing: Backing) -> None:
    """Fresh guest RAM reads as zeros, and nothing of it is resident."""
    with GuestRam.create(SIZE, backing) as ram:
        assert resident_bytes(ram.fd) == 0
        assert os.fstat(ram.fd).st_size == ram.size_bytes == SIZE
        assert not ram.words.any()


def test_words_are_the_memory_itself(backing: Backing) -> None:
    """What is written through `words` is in the file, and what is written to the file is in `words`."""
    with GuestRam.create(SIZE, backing) as ram:
        assert ram.words.shape == (SIZE // 8,)
        assert ram.words.dtype == np.int64
        assert ram.words.ctypes.data == ram.address
        ram.words[-1] = -2
        os.pwrite(ram.fd, (77).to_bytes(8, "little"), 8)
        assert os.pread(ram.fd, 8, SIZE - 8) == (-2).to_bytes(8, "little", signed=True)
        assert ram.words[1] == 77


def test_one_area_between_two_guards(backing: Backing) -> None:
    """The kernel sees one aligned area, with inaccessible ones of at least 2 MiB on both sides."""
    with GuestRam.create(SIZE, backing) as ram:
        assert ram.address % ALIGN_BYTES == 0
        areas = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, access, *_ = line.split()
            start, end = (int(address, 16) for address in addresses.split("-"))
            areas.append((start, end, access))
        at = areas.index((ram.address, ram.address + SIZE, "rw-s"))
        below, above = areas[at - 1], areas[at + 1]
        assert (below[1], below[2], above[0], above[2]) == (ram.address, "---p", ram.address + SIZE, "---p")
        assert below[1] - below[0] >= ALIGN_BYTES
        assert above[1] - above[0] >= ALIGN_BYTES


@pytest.mark.parametrize("place", ["ram.address - 1", "ram.address + ram.size_bytes"])
def test_a_stray_access_is_stopped(place: str) -> None:
    """A read just outside guest RAM ends the process."""
    script = f"""
import ctypes, resource
from pagetide.memory.guest_ram import GuestRam
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with GuestRam.create({SIZE}, "memfd") as ram:
    ctypes.string_at(ram.address, 1)
    print("inside", flush=True)
    ctypes.string_at({place}, 1)
    print("outside", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    assert (done.stdout, done.returncode) == (b"inside\n", -signal.SIGSEGV)


def test_a_size_that_is_no_whole_number_of_huge_pages_is_mapped(backing: Backing) -> None:
    """Any whole number of pages will do."""
    with GuestRam.create(SIZE + PAGE, backing) as ram:
        ram.words[-1] = 1
        assert resident_bytes(ram.fd) >= PAGE


def test_a_memfd_keeps_its_size_and_can_have_holes() -> None:
    """Nobody who has the descriptor can cut the memory short; holes can still be punched."""
    with GuestRam.create(SIZE, "memfd") as ram:
        with pytest.raises(PermissionError):
            os.ftruncate(ram.fd, 0)
        ram.words[:] = 1
        linux.punch_hole(ram.fd, 0, SIZE)
        assert resident_bytes(ram.fd) == 0


def test_two_mappings_share_the_memory() -> None:
    """RAM made in one place and adopted by descriptor in another is the same memory."""
    with GuestRam.create(SIZE, "memfd") as ram, GuestRam.from_fd(os.dup(ram.fd), SIZE // 2) as adopted:
        ram.words[3] = 5
        assert adopted.words[3] == 5
        assert adopted.size_bytes == SIZE // 2


def test_closing_twice_is_closing_once() -> None:
    """After close the memory is unmapped and the descriptor closed; closing again does nothing."""
    ram = GuestRam.create(SIZE, "memfd")
    address, fd = ram.address, ram.fd
    ram.close()
    ram.close()
    with pytest.raises(OSError, match="mincore"):
        linux.mincore(address, PAGE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_that_is_too_small_is_refused() -> None:
    """Adopting a file smaller than the RAM says both sizes, and closes the descriptor."""
    fd = linux.memfd_create("small")
    linux.ftruncate(fd, SIZE // 2)
    with pytest.raises(GuestRamError, match=r"8 MiB of guest RAM do not fit into the file .* 4 MiB"):
        GuestRam.from_fd(fd, SIZE)


def test_what_is_not_a_file_is_refused() -> None:
    """Adopting a pipe fails like a file that is too small."""
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(GuestRamError, match="do not fit into the file"):
        GuestRam.from_fd(reader, SIZE)


def test_a_file_that_cannot_be_mapped_is_refused() -> None:
    """A file open only for reading cannot be guest RAM; the reason is the kernel's."""
    fd = create_ram_file(SIZE, "memfd")
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    with pytest.raises(GuestRamError, match=r"cannot be mapped \(mmap: Permission denied\)"):
        GuestRam.from_fd(read_only, SIZE)


def test_more_than_the_machine_has_is_refused(backing: Backing) -> None:
    """A guest larger than the machine's memory is refused with both sizes."""
    size_bytes = (total_bytes() // ALIGN_BYTES + 1) * ALIGN_BYTES
    with pytest.raises(GuestRamError, match=r"is more than this machine's .* of memory$"):
        GuestRam.create(size_bytes, backing)


def test_more_than_is_available_is_refused(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest larger than what is left of the memory is refused before anything is killed for it."""
    monkeypatch.setattr(guest_ram, "available_bytes", lambda: SIZE - 1)
    with pytest.raises(GuestRamError, match=r"^8 MiB of guest RAM do not fit: only .* of memory is available$"):
        GuestRam.create(SIZE, backing)


def test_huge_pages_without_privilege_say_what_would_do(unprivileged: None) -> None:
    """Without root, the message names the call that failed, and the other backing."""
    with pytest.raises(GuestRamError, match=r"only root .* \(fsopen: .*\): run as root, or use --backing memfd$"):
        GuestRam.create(SIZE, "hugetmpfs")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSYS, r"^this kernel has no huge pages for tmpfs \(fsopen: .*\): use --backing memfd$"),
        (errno.ENOSPC, r"^no memory file of 8 MiB for the guest \(fsopen: No space left on device\)$"),
    ],
)
def test_other_failures_say_which_call_failed(number: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the calls, or one out of space, is reported in one sentence."""

    def fail(size_bytes: int) -> int:
        raise OSError(number, f"fsopen: {os.strerror(number)}")

    monkeypatch.setattr(guest_ram, "huge_tmpfs_file", fail)
    with pytest.raises(GuestRamError, match=message):
        GuestRam.create(SIZE, "hugetmpfs")


def test_a_failure_after_the_file_was_made_leaves_nothing(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file's size cannot be set, the file is closed again."""

    def fail(fd: int, size_bytes: int) -> None:
        raise OSError(errno.EFBIG, "ftruncate: File too large")

    monkeypatch.setattr(linux, "ftruncate", fail)
    with pytest.raises(GuestRamError, match=r"\(ftruncate: File too large\)$"):
        GuestRam.create(SIZE, backing)
