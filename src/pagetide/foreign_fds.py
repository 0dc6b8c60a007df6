"""What a descriptor that a peer gave is, told without asking whoever may stand behind it.

A peer can serve a file system of its own (FUSE), and then `fstat`, `fstatfs`, `mmap` and even `close` wait for its
answer, in the kernel, where no signal ends it. So the kind is read from what the kernel knows by itself: the name that
/proc/self/fd gives to what is no file, seals, which only tmpfs and hugetlbfs have, and a file's device and mount from
`statx` with AT_STATX_DONT_SYNC, which FUSE and NFS answer from what they remember (Linux 6.12: memfd_get_seals in
mm/memfd.c, fuse_update_get_attr in fs/fuse/dir.c).
"""

import os
import socket
import stat
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from pagetide import linux

_EVENTFD = "anon_inode:[eventfd]"
_SOCKET = "socket:"
_PIPE = "pipe:"
_LOCAL_WITHOUT_DEVICE = frozenset({"btrfs", "zfs", "bcachefs", "overlay"})
_CLOSING_S = 0.001
"""How long the caller of `close` waits for what may not answer: nearly all do at once."""

_THREADS_MAX = 4
"""Most threads of one `Closer`."""

_FREED_BYTES = 4 << 20
"""A file that holds more takes long to close for whoever has it open last: 1 GiB of pages 0.2 to 0.8 s."""

_SERVED_WITH_DEVICE = frozenset({"fuseblk"})


def is_eventfd(fd: int) -> bool:
    """Whether it is an eventfd: what is written to it and waited for is in the kernel, and it holds nothing else."""
    return _link(fd) == _EVENTFD


def is_one_way_socket(fd: int) -> bool:
    """Whether it is an end of a socketpair(2) of Unix stream sockets; if so, nothing can be sent to it from now on.

    The end that a front-end has of its connection to us is none: while we held it, that connection would never end.
    One whose queue holds descriptors would hold them all the same, so it must be empty, and stay so: it is shut down
    for reading, of which its giver sees nothing as long as it only reads.
    """
    if not _link(fd).startswith(_SOCKET):
        return False
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            return False
        if sock.getpeername():  # that of a connection to a listener has the listener's name
            return False
        sock.shutdown(socket.SHUT_RD)
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    finally:
        sock.detach()


def is_local_file(fd: int) -> bool:
    """Whether it is memory, tmpfs or hugetlbfs, or a regular file on a file system of this kernel's own.

    A file system without a device (btrfs) is known by its mount, which must be in our own mount namespace.
    """
    if linux.can_have_seals(fd):
        return True
    try:
        told = linux.statx(fd)
    except OSError:
        return False
    if not stat.S_ISREG(told.mode):
        return False
    mounted = _file_system(told.mount_id)
    return mounted not in _SERVED_WITH_DEVICE if told.dev_major else mounted in _LOCAL_WITHOUT_DEVICE


def describe(fd: int) -> str:
    """What it is, for people: `anon_inode:[eventpoll]`, `a file on nfs`."""
    link = _link(fd)
    if not link.startswith("/"):
        return link or "nothing that is known"
    try:
        told = linux.statx(fd)
    except OSError:
        return "a file"
    what = "a file" if stat.S_ISREG(told.mode) else "a device or folder"
    return f"{what} on {_file_system(told.mount_id) or 'a file system that is not mounted here'}"


def close(fd: int) -> bool:
    """Close it. It is closed whatever the file's own file system says of it, and nobody waits for its answer.

    FUSE and NFS are asked at each close(2) (`flush`), and a TCP socket may linger; a thread of the calling thread's
    `Closer` waits for those. Another file that holds much memory is closed there, too: when a VM ends its memory is
    still open here, and who closes it last frees it, page by page.

    Returns:
        Whether it is closed now, or will be without anybody's answer.
    """
    answers = _closes_at_once(fd)
    if answers and not _frees_much(fd):
        _close(fd)
        return True
    return _closer().close(fd, answers=answers) or answers


class Closer:
    """Closes what may not answer, for one peer or for several that answer for one another.

    A thread that closes can wait as long as the peer likes, also beyond SIGKILL: until the file system's server answers
    or ends. So there are only a few, and what comes when all of them wait stays open until one goes on.
    """

    def __init__(self) -> None:
        """Have nothing to close."""
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event, bool]] = deque()
        self._threads = 0
        self._open = 0

    @property
    def open_count(self) -> int:
        """How many descriptors were to be closed, and are open still because somebody does not answer."""
        return self._open

    def __enter__(self) -> None:
        """Whatever this thread closes in the context is closed by this object; contexts of others in it are not."""
        _here.closer = self

    def __exit__(self, *_: object) -> None:
        _here.closer = None

    def close(self, fd: int, *, answers: bool = False) -> bool:
        """Close it in a thread; whether it is closed now. One that `answers` is closed in the end, whoever gave it."""
        closed = threading.Event()
        with self._lock:
            self._waiting.append((fd, closed, answers))
            self._open += not answers
            starts = self._threads < _THREADS_MAX
            self._threads += starts
        if starts:
            threading.Thread(target=self._run, name="pagetide-close", daemon=True).start()
        return closed.wait(_CLOSING_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                fd, closed, answers = self._waiting.popleft()
            _close(fd)
            with self._lock:
                self._open -= not answers
            closed.set()


_here = threading.local()
_of_nobody = Closer()


def _closer() -> Closer:
    found: Closer | None = getattr(_here, "closer", None)
    return _of_nobody if found is None else found


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)


def _closes_at_once(fd: int) -> bool:
    link = _link(fd)
    if link == _EVENTFD or link.startswith(_PIPE):
        return True
    if link.startswith(_SOCKET):
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            return False
        family = sock.family
        sock.detach()
        return family == socket.AF_UNIX
    return is_local_file(fd)


def _frees_much(fd: int) -> bool:
    """Whether much memory may go with a descriptor that closes at once."""
    try:
        told = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISREG(told.st_mode) and told.st_blocks * 512 > _FREED_BYTES


def _link(fd: int) -> str:
    """The path of a file, from "/" on; of what is no file, its kind; empty if it is not open."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - a fifth of the time
    except OSError:
        return ""


def _file_system(mount_id: int) -> str | None:
    """The type of a mount of our own mount namespace, None for others (proc_pid_mountinfo(5))."""
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            words = line.split()
            if words[0] == str(mount_id):
                return words[words.index("-", 6) + 1]
    return None
