"""First fit by reservation: a VM has all of its memory to itself, and no host is ever short."""

import numpy as np
import numpy.typing as npt

from pagetide.fleet.hosts.host import Known


def wanted(known: Known, _: float) -> npt.NDArray[np.float64]:
    """All that each VM reserves; float64 [vm, 1]."""
    return known.reserved_bytes[:, np.newaxis]
