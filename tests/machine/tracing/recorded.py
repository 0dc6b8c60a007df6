"""What a real kernel recorded, kept in a file with its own text of the same events."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.machine.tracing.recording import Recording

LINUX_6_18 = Path(__file__).parent / "linux-6.18.npz"
"""Made by make_recording.py beside it."""

LINUX_6_1 = Path(__file__).parent / "linux-6.1.npz"
"""A guest's, without text. Made by test_record_guest.py, if the variable KEEP names this file."""


class Recorded(NamedTuple):
    """A recording, and the kernel's text of its events (`trace` in tracefs), or none."""

    formats: dict[str, str]
    pages: npt.NDArray[np.uint8]
    cpus: npt.NDArray[np.uint16]
    marks: tuple[str, ...]
    before: dict[str, str]
    after: dict[str, str]
    lost: int
    text: str

    @property
    def recording(self) -> Recording:
        """Without the text."""
        return Recording(*self[:-1])


def read_pages(instance: Path, cpus: Iterable[int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """All that an instance's buffers have."""
    pages, whose = [], []
    for cpu in cpus:
        fd = os.open(instance / f"per_cpu/cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                pages.append(np.frombuffer(os.read(fd, 4096), np.uint8))
                whose.append(cpu)
        except BlockingIOError:
            os.close(fd)
    return np.stack(pages), np.array(whose, np.uint16)


def save(recorded: Recorded, path: Path) -> None:
    """Keep it."""
    others = {name: value for name, value in recorded._asdict().items() if name not in ("pages", "cpus")}
    np.savez_compressed(path, pages=recorded.pages, cpus=recorded.cpus, others=np.array(json.dumps(others)))


def load(path: Path) -> Recorded:
    """Take it out again."""
    with np.load(path) as found:
        others = json.loads(str(found["others"]))
        others["marks"] = tuple(others["marks"])
        return Recorded(pages=found["pages"], cpus=found["cpus"], **others)
