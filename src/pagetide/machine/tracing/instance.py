"""A trace of its own beside whatever else traces the kernel: an instance of tracefs, from its making to its removal.

An instance has its own buffers, events and switch (Linux 6.12, Documentation/trace/ftrace.rst, "Instances"), so nothing
of anybody else's is touched, and removing it puts all back.
"""

import contextlib
from collections.abc import Sequence
from typing import Self

from pagetide.machine.tracing.formats import EVENTS, HEADER_PAGE, RECORDED
from pagetide.machine.tracing.kernel_files import KernelFiles, NoTracingError
from pagetide.machine.tracing.snapshot import FILES, STAT_REFRESH

_LOST = ("overrun", "dropped events")
"""What a buffer's `stats` call events that nobody can read any more; `commit overrun` is of the same ones."""


class TraceInstance:
    """A context: entered, the instance is there with our events and is not yet recording; left, it is removed."""

    def __init__(self, files: KernelFiles, name: str, buffer_bytes: int) -> None:
        """Take where and how large.

        Args:
            files: the kernel's.
            name: of the instance, which nobody else uses.
            buffer_bytes: for each processor.
        """
        self.folder = f"instances/{name}"
        self._files, self._buffer_bytes = files, buffer_bytes
        self.marks: list[str] = []

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            NoTracingError: the kernel has no such instances, events or buffers.
        """
        try:
            self._files.make_folder(self.folder)
        except OSError as error:
            raise NoTracingError(f"the kernel gives no instance of tracefs ({error.strerror})") from error
        try:
            self._prepare()
        except BaseException:
            self._remove()
            raise
        return self

    def _prepare(self) -> None:
        wanted = [
            ("switch", "tracing_on", "0"),  # a new instance records at once
            ("clock mono", "trace_clock", "mono"),  # one for all processors
            ("way to keep what is oldest", "options/overwrite", "0"),
            (f"buffer of {self._buffer_bytes >> 10} KiB a processor", "buffer_size_kb", str(self._buffer_bytes >> 10)),
            *((f"event {name}", f"events/{name}/enable", "1") for name in RECORDED),
        ]
        for what, path, text in wanted:
            try:
                self._files.write(f"{self.folder}/{path}", text)
            except OSError as error:
                raise NoTracingError(f"the kernel's tracing has no {what} ({error.strerror})") from error

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._files.write(f"{self.folder}/tracing_on", "0")
        self._files.remove_folder(self.folder)

    def begin(self, name: str) -> dict[str, str]:
        """Record from now on, with a first mark. What `snapshot` says just before."""
        before = snapshot(self._files, FILES)
        self._files.write(f"{self.folder}/tracing_on", "1")
        self.mark(name)
        return before

    def mark(self, name: str) -> None:
        """A stretch of this name begins. A mark that finds no room is missed by whoever reads the recording."""
        with contextlib.suppress(OSError):
            self._files.write(f"{self.folder}/trace_marker", name)
        self.marks.append(name)

    def end(self) -> dict[str, str]:
        """Set the last mark, and record no more. What `snapshot` says then."""
        self.mark("end")
        self._files.write(f"{self.folder}/tracing_on", "0")
        return snapshot(self._files, FILES[::-1])

    def formats(self) -> dict[str, str]:
        """What `read_layout` wants.

        Raises:
            NoTracingError: the kernel has not all of these events.
        """
        texts = {}
        try:
            for name in (HEADER_PAGE, *EVENTS.values()):
                path = f"events/{name}" if name == HEADER_PAGE else f"events/{name}/format"
                texts[name] = self._files.read(path)
        except OSError as error:
            raise NoTracingError(f"the kernel has no trace event {name} ({error.strerror})") from error
        return texts

    def entries_and_lost(self, cpu: int) -> tuple[int, int]:
        """How many events lie in a processor's buffer, and how many found no room in it."""
        counts = {"entries": 0}
        for line in self._files.read(f"{self.folder}/per_cpu/cpu{cpu}/stats").splitlines():
            name, found, rest = line.partition(": ")
            if found and rest.strip().isdigit():
                counts[name.strip()] = int(rest)
        return counts["entries"], sum(counts.get(name, 0) for name in _LOST)


def snapshot(files: KernelFiles, names: Sequence[str]) -> dict[str, str]:
    """The texts of what `read_snapshot` reads, in this order: reading some of them takes memory, too.

    Raises:
        NoTracingError: the kernel has not all of them.
    """
    with contextlib.suppress(OSError):  # some kernels have no such file; then some counts are a little late
        files.read(STAT_REFRESH)
    try:
        return {name: files.read(f"/proc/{name}") for name in names}
    except OSError as error:
        raise NoTracingError(f"the kernel does not tell what is free ({error.strerror})") from error
