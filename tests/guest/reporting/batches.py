"""Batches as tests write them."""

import numpy as np

from pagetide.guest.reporting.design import Batch


def batch_of(*blocks: tuple[int, int]) -> Batch:
    """A batch of (frame, order)."""
    return np.array([pfn << 4 | order for pfn, order in blocks], np.int64)
