"""Descriptors that a hostile front-end gives with its messages, by kind."""

import contextlib
import os
import socket


def fill(fd: int) -> None:
    """Have the next one who writes to this eventfd wait, whatever is in it now and whoever else writes to it."""
    os.set_blocking(fd, False)
    is_full = False
    while not is_full:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(fd)
        with contextlib.suppress(BlockingIOError):  # somebody has called in between
            os.eventfd_write(fd, (1 << 64) - 2)
            is_full = True
    os.set_blocking(fd, True)


def open_fd(kind: str, ram_fd: int) -> int:  # noqa: PLR0911 - a kind each
    """A descriptor of a kind, for a message."""
    match kind:
        case "ram":
            return os.dup(ram_fd)
        case "read-only":
            return os.open(f"/proc/self/fd/{ram_fd}", os.O_RDONLY)
        case "eventfd":
            return os.eventfd(1, os.EFD_CLOEXEC)
        case "full":
            fd = os.eventfd(0, os.EFD_CLOEXEC)
            fill(fd)
            return fd
        case "pipe":
            read_fd, write_fd = os.pipe()
            os.close(read_fd)
            return write_fd
        case "socket":
            ours, theirs = socket.socketpair()
            ours.close()
            return theirs.detach()
        case "talking":
            ours, theirs = socket.socketpair()
            ours.send(b"nobody asked")
            ours.close()
            return theirs.detach()
        case "folder":
            return os.open("/", os.O_RDONLY)
        case _:
            return os.open("/dev/null", os.O_RDWR)
