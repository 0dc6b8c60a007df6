"""How much memory a guest has, which can be less than what it shares.

A front-end shares a virtio-mem device's memory up to the most that can ever be plugged, and the guest sees only what is
plugged now (virtio 1.2, 5.15). Counted as RAM, the rest would be asked back from a guest that never had it. Two things
tell it apart: memory that is not plugged is not populated, so a file that holds nothing at all is none of the guest's;
and the guest's own total, which it tells with its statistics.
"""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pagetide.memory.region_map import REGION_BYTES, REGION_FD

_KERNEL_SHARE = 8
_KERNEL_BYTES = 64 << 20
_BLOCK_BYTES = 512  # the unit of st_blocks, stat(3type)


def ram_bytes(files: Sequence[tuple[int, int]], own_bytes: int | None) -> int:
    """The RAM that a guest has, as well as it can be told.

    What a kernel keeps for itself (its code and data, its records of pages, a crash kernel) is not in its own total:
    up to an eighth of RAM and 64 MiB may be missing there. If more is missing, only a part of some memory is plugged,
    and the guest's total counts, or what is populated if that is more.

    Args:
        files: shared and populated bytes of each file that the guest's memory is in.
        own_bytes: the guest's own total, pages in its balloon included; None if it tells none.
    """
    shared_bytes = used_bytes = 0
    for shared, populated in files:
        shared_bytes += shared
        used_bytes += shared if populated else 0
    used_bytes = used_bytes or shared_bytes
    if own_bytes is None:
        return used_bytes
    candidate = used_bytes if own_bytes <= used_bytes else shared_bytes
    if candidate - own_bytes <= candidate // _KERNEL_SHARE + _KERNEL_BYTES:
        return candidate
    populated_bytes = sum(min(shared, populated) for shared, populated in files)
    return max(own_bytes, populated_bytes)


def shared_files(regions: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Shared and populated bytes of each file in a region map's table, swapped-out pages included.

    Of a file of which only the metadata is kept (memory/metadata.py) all counts as populated.

    Raises:
        OSError: a descriptor is not open.
    """
    files: dict[tuple[int, int], tuple[int, int]] = {}
    for region in regions.tolist():
        fd, size_bytes = region[REGION_FD], region[REGION_BYTES]
        if fd < 0:
            file, populated_bytes = (-1, fd), size_bytes
        else:
            status = os.fstat(fd)
            file, populated_bytes = (status.st_dev, status.st_ino), status.st_blocks * _BLOCK_BYTES
        files[file] = (files.get(file, (0, 0))[0] + size_bytes, populated_bytes)
    return list(files.values())
