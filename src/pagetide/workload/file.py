"""A file that a kernel keeps in memory: written page by page, kept, removed. What a guest of `pagetide boot` does."""

import numpy as np

from pagetide.guest.vcpu import ALLOCATE, FREE
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.phases import Phase, operations


class File:
    """Write and remove a file once, on one vCPU, beside memory that is allocated first and never freed."""

    slots: int
    phases: tuple[Phase, ...]

    def __init__(self, *, kept_bytes: int, file_bytes: int, hold_s: float, rest_s: float) -> None:
        """Work out the phases; `rest_s` is for how long the guest is there after the file was removed, at least."""
        kept, pages = kept_bytes // PAGE_SIZE_BYTES, file_bytes // PAGE_SIZE_BYTES
        self.slots = kept + pages
        slots = np.arange(self.slots, dtype=np.int32)
        write = operations(ALLOCATE, np.zeros(self.slots, np.uint8), slots)
        remove = operations(FREE, np.zeros(pages, np.uint8), slots[kept:])
        self.phases = (
            Phase("writing the file", 0, True, (write,), hold_s, settle=False),
            Phase("removing the file", 0, False, (remove,), rest_s, settle=True),
        )
