"""File systems that are mounted nowhere, and so need no unmounting.

Numbers of calls and flags are those of include/uapi/linux/mount.h and include/uapi/asm-generic in Linux 6.12.
"""

import ctypes
import os
from collections.abc import Mapping

from pagetide import linux

_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSMOUNT_CLOEXEC = 1


def mount_nowhere(filesystem: str, options: Mapping[str, str]) -> int:
    """Mount a file system that has no place in the tree: it is unmounted when the descriptor is closed.

    Args:
        filesystem: its kind, such as tmpfs.
        options: as mount(8) has them.

    Returns:
        A descriptor of its root.

    Raises:
        PermissionError: the process may not mount (it lacks CAP_SYS_ADMIN), or a sandbox forbids it.
        OSError: the kernel lacks these calls, the file system, or an option.
    """
    context_fd = _fsopen(filesystem)
    try:
        for key, value in options.items():
            _fsconfig(context_fd, key, value)
        linux.syscall("fsconfig(create)", _SYS_FSCONFIG, context_fd, _FSCONFIG_CMD_CREATE, 0, 0, 0)
        return linux.syscall("fsmount", _SYS_FSMOUNT, context_fd, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context_fd)


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
