"""A file that a kernel keeps in memory: written page by page, kept, removed. What a guest of `pagetide boot` does."""

import numpy as np

from pagetide.units import PAGE_SIZE_BYTES
from pagetide.workload.lives import STAYS, lives
from pagetide.workload.plan import BEGIN, Moment, Plan
from pagetide.workload.stream import Mark


def file(*, kept_bytes: int, file_bytes: int, write_s: float, hold_s: float, rest_s: float) -> Plan:
    """Write and remove a file once, on one vCPU, beside memory that is allocated first and never freed.

    Args:
        kept_bytes: what is never freed.
        file_bytes: the file's size.
        write_s: for how long it is written, steadily.
        hold_s: for how long it is kept then.
        rest_s: for how long the guest is there after it was removed, at least.
    """
    kept, pages = kept_bytes // PAGE_SIZE_BYTES, file_bytes // PAGE_SIZE_BYTES
    parts = lives(np.zeros(kept), STAYS, 0, 0), lives(np.linspace(0, write_s, pages), write_s + hold_s, 0, 0)
    begins = (
        (BEGIN, Mark(0, "writing the file", 0, eats=True)),
        (Moment(write_s + hold_s, allocated=True), Mark(0, "removing the file", 0, settle=True)),
    )
    return Plan(parts, begins, write_s + hold_s + rest_s)
