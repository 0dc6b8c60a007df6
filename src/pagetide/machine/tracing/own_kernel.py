"""Recording the kernel that runs us.

What the kernel's buffers have is fetched ten times a second, into memory that was taken before: whatever the recorder
allocates meanwhile would be in the recording.
"""

import contextlib
import errno
import mmap
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from pagetide.linux import MAP_ANONYMOUS, MAP_POPULATE, MAP_PRIVATE
from pagetide.machine.tracing.formats import read_layout
from pagetide.machine.tracing.instance import TraceInstance
from pagetide.machine.tracing.kernel_files import NoTracingError, OwnKernelFiles
from pagetide.machine.tracing.recording import Recording
from pagetide.memory.available import available_bytes
from pagetide.units import PAGE_SIZE_BYTES, format_size

_FETCH_INTERVAL_S = 0.1
_ROOM_SHARE = 8
_BUFFERS_SHARE = 32
_BUFFER_BYTES_MIN, _BUFFER_BYTES_MAX = 1 << 20, 64 << 20
_PAGE_HEADER_BYTES_MAX = 16
_PARTS_MAX = 3
"""Pages that a buffer may give beyond its size: the reader's own, and what was on it in part."""

_NAME = "pagetide-"


class Task(NamedTuple):
    """What is recorded: a command and some time after it, or some time.

    Attributes:
        command: words of a command; none is started if there are none.
        seconds: without a command, how long to record; with one, how much longer than it runs.
        room_bytes: how much memory the recording may take, besides what the kernel's buffers have at its end; None is
            an eighth of what is available.
    """

    command: Sequence[str]
    seconds: float
    room_bytes: int | None = None


class Recorded(NamedTuple):
    """What came of it.

    Attributes:
        recording: what was recorded.
        status: the command's exit status; None without one, or if a further signal ended the wait for it.
        ended_early: a sentence on why it was ended before its time; empty if it was not.
    """

    recording: Recording
    status: int | None
    ended_early: str


def record_own_kernel(task: Task) -> Recorded:
    """Record until the task is over, until Ctrl-C, or until there is no more room.

    Raises:
        NoTracingError: it cannot be done; nothing was started.
        OSError: the command cannot be started.
    """
    if os.sysconf("SC_PAGE_SIZE") != PAGE_SIZE_BYTES:
        raise NoTracingError(f"only kernels with pages of {format_size(PAGE_SIZE_BYTES)} are recorded")
    files = OwnKernelFiles()
    with contextlib.closing(files), _Command(task.command) as command:
        _remove_left(files.root / "instances")
        on_line = os.cpu_count() or 1
        buffer_bytes = available_bytes() // _BUFFERS_SHARE // on_line
        buffer_bytes = max(_BUFFER_BYTES_MIN, min(_BUFFER_BYTES_MAX, buffer_bytes))
        with TraceInstance(files, f"{_NAME}{_process(os.getpid())}", buffer_bytes) as trace:
            recorder = _Recorder(files, trace, command, task, on_line * buffer_bytes)
            recording, ended_early = recorder.record()
    return Recorded(recording, command.status, ended_early)


class _Command:
    """A context: left, the command was waited for, if it was started. It may outlive its recording.

    Attributes:
        words: of it; none is started if there are none.
        status: its exit status, once the context is left; None if a signal ended the wait.
    """

    status: int | None = None

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def start(self) -> subprocess.Popen[bytes]:
        """Start it.

        Raises:
            OSError: it cannot be.
        """
        self._process = subprocess.Popen(self.words)  # noqa: S603 - what the caller wants recorded
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(KeyboardInterrupt):
                self._process.wait()
            self.status = self._process.poll()


class _FullError(Exception):
    """There is no more room."""


class _Recorder:
    """One recording."""

    def __init__(
        self, files: OwnKernelFiles, trace: TraceInstance, command: _Command, task: Task, buffers_bytes: int
    ) -> None:
        self._trace, self._command, self._task = trace, command, task
        self._folder = files.root / trace.folder / "per_cpu"
        self._cpus = _cpus(self._folder)
        self._formats = trace.formats()
        page_bytes = read_layout(self._formats).page_bytes
        room_bytes = task.room_bytes if task.room_bytes is not None else available_bytes() // _ROOM_SHARE
        self._room_pages = max(1, room_bytes // page_bytes)
        nr_pages = self._room_pages + _last_pages(buffers_bytes, page_bytes, len(self._cpus))
        memory = mmap.mmap(-1, nr_pages * page_bytes, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE)
        self._pages = np.frombuffer(memory, np.uint8).reshape(nr_pages, page_bytes)
        self._whose = np.ones(nr_pages, np.uint16)
        self._filled = 0

    def record(self) -> tuple[Recording, str]:
        """From the first mark to the last; the recording, and why it was ended before its time."""
        words = self._command.words
        ended_early = ""
        with contextlib.ExitStack() as resources:
            self._fds = [self._open(cpu) for cpu in self._cpus]
            for fd in self._fds:
                resources.callback(os.close, fd)
            before = self._trace.begin(words[0] if words else "recording")
            try:
                if words:
                    self._run()
                    self._trace.mark(f"after {words[0]}")
                self._wait(self._task.seconds)
            except KeyboardInterrupt:
                ended_early = "ended by a signal"
            except _FullError:
                ended_early = self._full
            after = self._trace.end()
            with contextlib.suppress(_FullError):
                self._fetch(len(self._pages))
        # What is still there was not read, and counts as lost.
        lost = sum(sum(self._trace.entries_and_lost(cpu)) for cpu in self._cpus)
        pages, whose = self._pages[: self._filled], self._whose[: self._filled]
        return Recording(self._formats, pages, whose, tuple(self._trace.marks), before, after, lost), ended_early

    @property
    def _full(self) -> str:
        room = format_size(self._room_pages * self._pages.shape[1])
        return f"ended when {room} were full: --room gives more"

    def _open(self, cpu: int) -> int:
        return os.open(self._folder / f"cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _run(self) -> None:
        """Start the command and record to its end."""
        pidfd = os.pidfd_open(self._command.start().pid)
        try:
            while not select.select([pidfd], [], [], _FETCH_INTERVAL_S)[0]:
                self._fetch(self._room_pages)
        finally:
            os.close(pidfd)

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _FETCH_INTERVAL_S))
            self._fetch(self._room_pages)

    def _fetch(self, room_pages: int) -> None:
        """Take what the buffers have.

        Args:
            room_pages: how many pages to have at most.

        Raises:
            _FullError: that is not enough.
        """
        for cpu, fd in zip(self._cpus, self._fds, strict=True):
            with _suppressed(errno.EAGAIN, errno.ENODEV):  # nothing is there now, or the processor never was on-line
                while True:
                    if self._filled >= room_pages:
                        raise _FullError
                    if not os.readv(fd, [self._pages[self._filled]]):
                        break
                    self._whose[self._filled] = cpu
                    self._filled += 1


def _last_pages(buffers_bytes: int, page_bytes: int, cpus: int) -> int:
    """How many pages all buffers have at most when they are fetched for the last time."""
    return -(-buffers_bytes // (page_bytes - _PAGE_HEADER_BYTES_MAX)) + _PARTS_MAX * cpus


@contextlib.contextmanager
def _suppressed(*errors: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise


def _cpus(folder: Path) -> list[int]:
    """All that there may be, on-line or not."""
    return sorted(int(path.name.removeprefix("cpu")) for path in folder.iterdir())


def _process(pid: int) -> str:
    """What no other process is called as long as the machine runs: its id, and when it began.

    The latter in clock ticks since boot (`starttime`, proc_pid_stat(5)).

    Raises:
        OSError: there is no such process.
    """
    status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return f"{pid}-{status.rpartition(')')[2].split()[19]}"


def _remove_left(instances: Path) -> None:
    """Remove the instances of recorders that were killed."""
    for path in instances.glob(f"{_NAME}*-*"):
        process = path.name.removeprefix(_NAME)
        pid = process.partition("-")[0]
        if not pid.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if _process(int(pid)) == process:
                continue
        with contextlib.suppress(OSError):
            path.rmdir()
