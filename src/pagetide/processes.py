"""What the kernel does to a process for us, and how long one has been at work."""

import ctypes
import time
from signal import Signals

from pagetide import linux

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


def set_parent_death_signal(signal: Signals) -> None:
    """Have the kernel send this process a signal when its parent ends (prctl(2), PR_SET_PDEATHSIG).

    It is the parent's *thread* that counts: the one that started this process must live as long as the parent does. A
    parent that ended before the call is not noticed.

    Raises:
        OSError: the kernel refused.
    """
    linux.check("prctl(PR_SET_PDEATHSIG)", _libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0))


def process_cpu_s(pid: int) -> float | None:
    """User and system time that a process has used, in seconds; None once it has ended and been waited for."""
    # clock_getcpuclockid(3) answers for any process, to the nanosecond, where /proc/PID/stat counts ticks of 10 ms.
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
        return None
    try:
        return time.clock_gettime(clock.value)
    except OSError:
        return None
