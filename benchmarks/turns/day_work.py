"""What a simulated day takes per GiB of its guest, as a script: it imports nothing that an earlier build has not.

It reads `cpu` or `memory` line by line, and writes CPU seconds or MiB per GiB: what a day of 17 GiB takes more than
one of 1 GiB, over 16, each in a process of its own, forked where all kernels are loaded. `whole` writes how many MiB a
day of 1 TiB takes in all.
"""

import os
import resource
import struct
import sys
import time

from pagetide.machine.config import RunConfig, workload_defaults
from pagetide.machine.costs import read_costs
from pagetide.machine.simulated.machine import SimulatedMachine

_SMALL_GIB, _LARGE_GIB, _WHOLE_GIB = 1, 17, 1024


class _Nobody:
    """Watches no run."""

    def stage(self, text: str) -> None:
        """Something new begins."""

    def sample(self, sample: object) -> None:
        """The state of things."""

    def warning(self, text: str) -> None:
        """Something is not as it should be."""


def _day(ram_gib: int) -> tuple[float, float]:
    """CPU seconds and MiB of a day, in this process."""
    config = RunConfig(**workload_defaults("day") | {"ram_bytes": ram_gib << 30})
    start_s = time.process_time()
    assert SimulatedMachine(config, read_costs()).run(_Nobody()).outcome == "complete"
    spent_s = time.process_time() - start_s
    return spent_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forked(ram_gib: int) -> tuple[float, float]:
    """The same in a process of its own."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_fd, struct.pack("dd", *_day(ram_gib)))
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        spent_s, taken_mib = struct.unpack("dd", pipe.read())
    os.waitpid(child, 0)
    return spent_s, taken_mib


def main() -> None:
    """Do what is asked, line by line, until there is no more."""
    _day(_SMALL_GIB)
    for line in sys.stdin:
        if line.strip() == "whole":
            print(_forked(_WHOLE_GIB)[1], flush=True)
            continue
        which = ["cpu", "memory"].index(line.strip())
        small, large = _forked(_SMALL_GIB), _forked(_LARGE_GIB)
        print((large[which] - small[which]) / (_LARGE_GIB - _SMALL_GIB), flush=True)


if __name__ == "__main__":
    main()
