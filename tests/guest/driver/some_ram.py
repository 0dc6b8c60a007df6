"""Memory at an address, for a device that reads what a driver has put there."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES


@contextmanager
def some_ram(pages: int) -> Iterator[int]:
    """So many pages of zeros; where they are."""
    with mmap.mmap(-1, pages * PAGE_SIZE_BYTES) as ram:
        view = np.frombuffer(ram, np.int64)
        yield view.ctypes.data
        del view
