"""First fit by a quantile of what was held for each VM: hosts are short where many hold more than that at once."""

import numpy as np
import numpy.typing as npt

from pagetide.fleet.hosts.host import Known


def wanted(known: Known, level: float) -> npt.NDArray[np.float64]:
    """What was held for each VM, or less, for this share of the steps that are known; float64 [vm, 1]."""
    rank = np.maximum(np.ceil(level * known.steps).astype(np.int64) - 1, 0)
    there = np.where(known.is_known, rank, 0)[:, np.newaxis]
    quantile = np.take_along_axis(known.sorted_bytes, there, axis=1)[:, 0]
    return np.where(known.is_known, quantile, known.reserved_bytes)[:, np.newaxis]
