"""A huge tmpfs that is mounted nowhere: what its file takes, and who may have one."""

import os
from pathlib import Path

import pytest

from pagetide import linux
from pagetide.huge_tmpfs import huge_tmpfs_file

pytestmark = pytest.mark.jit  # no kernel is called


def test_a_huge_tmpfs_file_is_huge_and_mounted_nowhere(hugetmpfs: None) -> None:
    """A byte written takes 2 MiB, and the machine's mounts are what they were."""
    mounts = Path("/proc/self/mountinfo").read_text()
    size_bytes = 16 << 21
    fd = huge_tmpfs_file(size_bytes)
    try:
        assert Path("/proc/self/mountinfo").read_text() == mounts
        assert os.fstat(fd).st_nlink == 0
        linux.ftruncate(fd, size_bytes)
        for offset_bytes in range(0, size_bytes, 2 << 20):
            os.pwrite(fd, b"x", offset_bytes)
        # The kernel falls back to small pages when memory is fragmented: one huge page of the sixteen is proof enough.
        assert os.fstat(fd).st_blocks * 512 >= 2 << 20
    finally:
        os.close(fd)


def test_a_huge_tmpfs_is_no_larger_than_asked(hugetmpfs: None) -> None:
    """Writing beyond the size of the tmpfs fails with ENOSPC."""
    fd = huge_tmpfs_file(2 << 20)
    try:
        os.pwrite(fd, bytes(2 << 20), 0)
        with pytest.raises(OSError, match=r"No space left on device"):
            os.pwrite(fd, b"x", 2 << 20)
    finally:
        os.close(fd)


def test_a_huge_tmpfs_takes_a_privilege(unprivileged: None) -> None:
    """Without CAP_SYS_ADMIN, fsopen itself refuses."""
    with pytest.raises(PermissionError, match=r"fsopen: Operation not permitted"):
        huge_tmpfs_file(2 << 20)
