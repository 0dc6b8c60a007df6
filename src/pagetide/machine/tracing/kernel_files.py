"""The files by which a kernel is told to trace, wherever it runs: this one's, or a guest's."""

import os
from pathlib import Path
from typing import Protocol

from pagetide.detached_mount import mount_nowhere


class KernelFiles(Protocol):
    """A kernel's files by their paths; those of tracefs are relative to its root, all others begin with a slash.

    Every method raises OSError where the kernel refuses.
    """

    def read(self, path: str) -> str:
        """The text of a file."""

    def write(self, path: str, text: str) -> None:
        """Write one line to a file that exists."""

    def make_folder(self, path: str) -> None:
        """Make a folder."""

    def remove_folder(self, path: str) -> None:
        """Remove one, with all that tracefs put into it."""


class NoTracingError(Exception):
    """A kernel cannot be traced, or not by us; the message is a sentence without a full stop."""


class OwnKernelFiles:
    """Those of the kernel that runs us, on a tracefs of our own that is mounted nowhere. Close it in the end."""

    def __init__(self) -> None:
        """Mount it.

        Raises:
            NoTracingError: we are not root, or the kernel has no tracefs.
        """
        try:
            self._root_fd = mount_nowhere("tracefs", {})
        except PermissionError as error:
            raise NoTracingError(f"only root may trace the kernel ({error.strerror})") from error
        except OSError as error:
            raise NoTracingError(f"this kernel has no tracefs ({error.strerror})") from error
        self.root = Path(f"/proc/self/fd/{self._root_fd}")

    def close(self) -> None:
        """Unmount it."""
        os.close(self._root_fd)

    def read(self, path: str) -> str:
        """See `KernelFiles`."""
        return (self.root / path).read_text()

    def write(self, path: str, text: str) -> None:
        """See `KernelFiles`."""
        fd = os.open(self.root / path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode() + b"\n")
        finally:
            os.close(fd)

    def make_folder(self, path: str) -> None:
        """See `KernelFiles`."""
        (self.root / path).mkdir()

    def remove_folder(self, path: str) -> None:
        """See `KernelFiles`."""
        (self.root / path).rmdir()
