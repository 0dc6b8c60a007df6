"""First fit by the peak of the sum: a host takes a VM if all that was held for its VMs never passed its room together.

By the highest of each hour: VMs whose peaks lie within one hour are taken to have them at once.
"""

import numpy as np
import numpy.typing as npt

from pagetide.fleet.hosts.host import Known


def wanted(known: Known, _: float) -> npt.NDArray[np.float64]:
    """The most that was held for each VM by the hour; float64 [vm, hour]."""
    return np.where(known.is_known[:, np.newaxis], known.hourly_bytes, known.reserved_bytes[:, np.newaxis])
