"""The rival: a bare loop of fallocate calls in C, compiled here and run in this process, so that CPU time compares."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>

long punch(int fd, const long *offsets, long count, long length)
{
    long failed = 0;

    for (long i = 0; i < count; i++)
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsets[i], length))
            failed++;
    return failed;
}
"""


class NoCompilerError(Exception):
    """There is no C compiler that works; the message says what was tried."""


class BarePunch:
    """The compiled loop."""

    def __init__(self) -> None:
        """Compile it.

        Raises:
            NoCompilerError: this machine has no `cc`, or it failed.
        """
        compiler = shutil.which("cc")
        if compiler is None:
            raise NoCompilerError("no C compiler (cc) on this machine")
        with tempfile.TemporaryDirectory(prefix="pagetide-bench-") as folder:
            source, library = Path(folder, "punch.c"), Path(folder, "punch.so")
            source.write_text(_SOURCE)
            command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
            result = subprocess.run(command, check=False, capture_output=True, text=True)
            if result.returncode != 0:
                raise NoCompilerError(f"cc failed: {result.stderr.strip().splitlines()[-1:]}")
            self._punch = ctypes.CDLL(str(library)).punch
        self._punch.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
        self._punch.restype = ctypes.c_long

    def __call__(self, fd: int, offsets: npt.NDArray[np.int64], length_bytes: int) -> None:
        """Punch all these holes."""
        failed = self._punch(fd, offsets.ctypes.data, offsets.size, length_bytes)
        assert failed == 0, f"{failed} of {offsets.size} calls failed"
