"""Recording the kernel that runs us.

What the kernel's buffers have is fetched ten times a second, into memory that was taken before: whatever the recorder
allocates meanwhile would be in the recording.
"""

import contextlib
import mmap
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
_NAME = "pagetide-"


class Task(NamedTuple):
    """What is recorded: a command and some time after it, or some time.

    Attributes:
        command: words of a command; none is started if there are none.
        seconds: without a command, how long to record; with one, how much longer than it runs.
        room_bytes: how much memory the recording may take; None is an eighth of what is available.
    """

    command: Sequence[str]
    seconds: float
    room_bytes: int | None = None


class Recorded(NamedTuple):
    """What came of it.

    Attributes:
        recording: what was recorded.
        status: the command's exit status; None without one, or if it was still running.
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
    with contextlib.closing(files):
        _remove_left(files.root / "instances")
        cpus = _cpus(files.root)
        buffer_bytes = available_bytes() // _BUFFERS_SHARE // len(cpus)
        buffer_bytes = max(_BUFFER_BYTES_MIN, min(_BUFFER_BYTES_MAX, buffer_bytes))
        with TraceInstance(files, f"{_NAME}{os.getpid()}", buffer_bytes) as trace:
            return _Recorder(files, trace, cpus, task).record()


class _FullError(Exception):
    """There is no more room."""


class _Recorder:
    """One recording."""

    def __init__(self, files: OwnKernelFiles, trace: TraceInstance, cpus: list[int], task: Task) -> None:
        self._trace, self._cpus, self._task = trace, cpus, task
        self._folder = files.root / trace.folder / "per_cpu"
        self._formats = trace.formats()
        page_bytes = read_layout(self._formats).page_bytes
        room_bytes = task.room_bytes if task.room_bytes is not None else available_bytes() // _ROOM_SHARE
        nr_pages = max(1, room_bytes // page_bytes)
        memory = mmap.mmap(-1, nr_pages * page_bytes, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE)
        self._pages = np.frombuffer(memory, np.uint8).reshape(nr_pages, page_bytes)
        self._whose = np.ones(nr_pages, np.uint16)
        self._filled = 0

    def record(self) -> Recorded:
        """From the first mark to the last."""
        command = self._task.command
        status, ended_early = None, ""
        with contextlib.ExitStack() as resources:
            self._fds = [self._open(cpu) for cpu in self._cpus]
            for fd in self._fds:
                resources.callback(os.close, fd)
            before = self._trace.begin(command[0] if command else "recording")
            try:
                if command:
                    status = self._run(command)
                    self._trace.mark(f"after {command[0]}")
                self._wait(self._task.seconds)
            except KeyboardInterrupt:
                ended_early = "ended by Ctrl-C"
            except _FullError:
                ended_early = self._full
            after = self._trace.end()
            try:
                self._fetch()
            except _FullError:
                ended_early = self._full
        lost = sum(self._trace.entries_and_lost(cpu)[1] for cpu in self._cpus)
        pages, whose = self._pages[: self._filled], self._whose[: self._filled]
        return Recorded(
            Recording(self._formats, pages, whose, tuple(self._trace.marks), before, after, lost), status, ended_early
        )

    @property
    def _full(self) -> str:
        return f"ended when {format_size(self._pages.nbytes)} were full: --room gives more"

    def _open(self, cpu: int) -> int:
        return os.open(self._folder / f"cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _run(self, command: Sequence[str]) -> int:
        """Run it to its end; it goes on if the recording ends before."""
        process = subprocess.Popen(command)  # noqa: S603 - what the caller wants recorded
        pidfd = os.pidfd_open(process.pid)
        try:
            while not select.select([pidfd], [], [], _FETCH_INTERVAL_S)[0]:
                self._fetch()
        finally:
            os.close(pidfd)
            status = process.wait()
        return status

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _FETCH_INTERVAL_S))
            self._fetch()

    def _fetch(self) -> None:
        """Take what the buffers have.

        Raises:
            _FullError: there is no room for more.
        """
        for cpu, fd in zip(self._cpus, self._fds, strict=True):
            with contextlib.suppress(BlockingIOError):
                while True:
                    if self._filled == len(self._pages) - 1:
                        raise _FullError
                    if not os.readv(fd, [self._pages[self._filled]]):
                        break
                    self._whose[self._filled] = cpu
                    self._filled += 1


def _cpus(root: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("cpu")) for path in (root / "per_cpu").iterdir())


def _remove_left(instances: Path) -> None:
    """Remove the instances of recorders that were killed."""
    for path in instances.glob(f"{_NAME}*"):
        pid = path.name.removeprefix(_NAME)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                path.rmdir()
