"""The discarding call itself."""

import errno as errors

from pagetide.atomics import errno
from pagetide.jit import external, inline_kernel, int32, int64
from pagetide.memory.metadata import punch_metadata

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, include/uapi/linux/falloc.h
_EINTR_MAX = 100
_EINTR = errors.EINTR

_fallocate = external("fallocate", int32, int32, int32, int64, int64)


@inline_kernel
def punch_hole(fd: int, offset_bytes: int, length_bytes: int) -> int:
    """Punch one hole; 0, or the errno of fallocate(2). Interrupted calls are repeated, up to a hundred times.

    A negative descriptor is a file of which only the metadata is kept (memory/metadata.py).
    """
    if fd < 0:
        return punch_metadata(-fd, offset_bytes, length_bytes)
    failure = 0
    for _ in range(_EINTR_MAX):
        if _fallocate(int(fd), _PUNCH_HOLE_KEEP_SIZE, int(offset_bytes), int(length_bytes)) == 0:
            return 0
        failure = errno()
        if failure != _EINTR:
            break
    return failure
