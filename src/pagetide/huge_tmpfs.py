"""A nameless file on a tmpfs of its own, with huge pages: memory that the kernel backs as a large guest's would be."""

import os

from pagetide import linux
from pagetide.detached_mount import mount_nowhere


def huge_tmpfs_file(size_bytes: int) -> int:
    """A new, nameless, empty file on a tmpfs of its own that uses huge pages wherever it can.

    The tmpfs (mount option `huge=always`, Documentation/filesystems/tmpfs.rst) is mounted nowhere, so nothing has to be
    removed: it goes when the descriptor, its copies and its mappings have gone.

    Args:
        size_bytes: how much the tmpfs may hold.

    Raises:
        PermissionError: the process may not mount (it lacks CAP_SYS_ADMIN), or a sandbox forbids it.
        OSError: the kernel lacks these calls, or huge pages on tmpfs.
    """
    mount_fd = mount_nowhere("tmpfs", {"huge": "always", "size": str(size_bytes)})
    try:
        with linux.named("open(O_TMPFILE)"):
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=mount_fd)
    finally:
        os.close(mount_fd)
