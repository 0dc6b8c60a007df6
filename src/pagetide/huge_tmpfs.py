"""A nameless file on a tmpfs of its own, with huge pages: memory that the kernel backs as a large guest's would be.

Numbers of calls and flags are those of include/uapi/linux/mount.h and include/uapi/asm-generic in Linux 6.12.
"""

import ctypes
import os

from pagetide import linux

_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSMOUNT_CLOEXEC = 1


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
    context_fd = _fsopen("tmpfs")
    try:
        _fsconfig(context_fd, "huge", "always")
        _fsconfig(context_fd, "size", str(size_bytes))
        linux.syscall("fsconfig(create)", _SYS_FSCONFIG, context_fd, _FSCONFIG_CMD_CREATE, 0, 0, 0)
        mount_fd = linux.syscall("fsmount", _SYS_FSMOUNT, context_fd, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context_fd)
    try:
        with linux.named("open(O_TMPFILE)"):
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=mount_fd)
    finally:
        os.close(mount_fd)


def _fsopen(filesystem: str) -> int:
    name = ctypes.create_string_buffer(filesystem.encode())
    return linux.syscall("fsopen", _SYS_FSOPEN, ctypes.addressof(name), _FSOPEN_CLOEXEC)


def _fsconfig(context_fd: int, key: str, value: str) -> None:
    key_buffer = ctypes.create_string_buffer(key.encode())
    value_buffer = ctypes.create_string_buffer(value.encode())
    linux.syscall(
        f"fsconfig({key}={value})",
        _SYS_FSCONFIG,
        context_fd,
        _FSCONFIG_SET_STRING,
        ctypes.addressof(key_buffer),
        ctypes.addressof(value_buffer),
        0,
    )
