"""Recording the kernel of a real guest: its buffers keep all until the guest is done, and are sent then."""

import contextlib
from collections.abc import Iterator

import numpy as np

from pagetide.machine.linux.attendant import GuestFiles
from pagetide.machine.tracing.formats import read_layout
from pagetide.machine.tracing.instance import TraceInstance
from pagetide.machine.tracing.pages import read_events
from pagetide.machine.tracing.recording import Recording

_CPU = 0  # our guests have one processor


class GuestRecorder:
    """An attendant that records. See `Attendant`.

    Attributes:
        recording: what was recorded, once the guest is done; None if it never was.
    """

    recording: Recording | None = None

    def __init__(self, buffer_bytes: int) -> None:
        """Take how much of the guest's memory its buffer may have."""
        self._buffer_bytes = buffer_bytes
        self._trace: TraceInstance | None = None

    @contextlib.contextmanager
    def attending(self, files: GuestFiles) -> Iterator[None]:
        """Record what happens in this context.

        Raises:
            NoTracingError: the guest's kernel cannot be traced.
        """
        with TraceInstance(files, "pagetide", self._buffer_bytes) as trace:
            formats = trace.formats()
            before = trace.begin("begin")
            self._trace = trace
            yield
            self._trace = None
            after = trace.end()
            entries, lost = trace.entries_and_lost(_CPU)
            layout = read_layout(formats)

            def count(chunks: bytes) -> bool:
                nonlocal entries
                if chunks:
                    pages = np.frombuffer(chunks, np.uint8).reshape(-1, layout.page_bytes)
                    entries -= len(read_events(pages, np.zeros(len(pages), np.uint16), layout)[0].kind)
                return entries <= 0

            path = f"{trace.folder}/per_cpu/cpu{_CPU}/trace_pipe_raw"
            pages = np.frombuffer(files.fetch(path, layout.page_bytes, count), np.uint8).reshape(-1, layout.page_bytes)
            cpus = np.zeros(len(pages), np.uint16)
            self.recording = Recording(formats, pages, cpus, tuple(trace.marks), before, after, lost)

    def stage(self, name: str) -> None:
        """A stretch of this name begins."""
        if self._trace is not None:
            self._trace.mark(name)
