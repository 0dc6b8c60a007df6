"""Page cache, given back while nobody misses it: a part of `pagetide tend` in Python, which is one file (__init__.py).

That it goes little by little, and less the more tasks wait for memory, is Senpai's way (Weiner and others, "TMO:
Transparent Memory Offloading in Datacenters", ASPLOS 2022, section 3.3); faster here, since the guest is idle. Linux:
Documentation/admin-guide/cgroup-v2.rst (memory.reclaim, since 5.19) and Documentation/accounting/psi.rst.
"""

import errno
import time
from collections.abc import Callable

from pagetide.inside.guest import BusyError, Guest, log

WAITED_MAX = 0.001  # share of the time in which some task waits for memory; from there on nothing is taken
STEP_SHARE = 1 / 32  # of the page cache, a second
MIB_KIB = 1024


class Cache:
    """Page cache, of which a share of memory is to stay, and what tasks had to wait for."""

    def __init__(self, guest: Guest, share_percent: int) -> None:
        """Take how much of memory is to stay page cache; OSError if this kernel does not give it back on demand."""
        self.guest = guest
        self.reclaim_file = guest.root / "sys/fs/cgroup/memory.reclaim"
        if not self.reclaim_file.exists():
            raise OSError(f"page cache cannot be given back: there is no {self.reclaim_file}")
        try:
            self.looked = time.monotonic(), self.waited_s()
        except OSError as error:
            raise OSError(f"page cache is given back only where the kernel tells who waits for it: {error}") from error
        self.floor_kib = self.memory_kib("MemTotal:") * share_percent // 100

    def memory_kib(self, *names: str) -> int:
        """Of /proc/meminfo, these together."""
        rows = [line.split() for line in self.guest.lines("proc/meminfo")]
        return sum(int(row[1]) for row in rows if row[0] in names)

    def size_kib(self) -> int:
        """All of it, used or not."""
        return self.memory_kib("Active(file):", "Inactive(file):")

    def waited_s(self) -> float:
        """For how long some task has waited for memory since boot."""
        return int(self.guest.lines("proc/pressure/memory")[0].rpartition("total=")[2]) / 1e6

    def waited_share(self) -> float:
        """The share of the time since the last call, or the beginning, in which some task waited for memory."""
        before, self.looked = self.looked, (time.monotonic(), self.waited_s())
        return (self.looked[1] - before[1]) / max(self.looked[0] - before[0], 1e-3)

    def reclaim(self, kib: int) -> bool:
        """Have this much go, what was not used for longest; whether the kernel does that, and without swapping."""
        texts = [f"{kib}K swappiness=0"]
        swaps = self.guest.root / "proc/swaps"  # is not there in a kernel without swap
        if not swaps.exists() or len(swaps.read_text().splitlines()) < 2:
            texts.append(f"{kib}K")  # all that older kernels take
        for text in texts:
            try:
                self.reclaim_file.write_text(text)
            except OSError as error:
                if error.errno != errno.EAGAIN:  # it was less
                    continue
            return True
        return False

    def trim(self, worth_kib: int, stay_idle: "Callable[[], bool]") -> None:
        """Give back what is beyond the floor, if that is worth it, until tasks wait for it; BusyError at once."""
        share, first = self.waited_share(), self.size_kib()
        if share >= WAITED_MAX:  # what went the last time, perhaps
            self.floor_kib = max(self.floor_kib, first)
        if first - self.floor_kib < worth_kib:
            return
        what = f"{(first - self.floor_kib) // MIB_KIB} of {first // MIB_KIB} MiB of page cache"
        if self.guest.dry_run:
            log(f"would give back {what} through /{self.reclaim_file.relative_to(self.guest.root)}, until tasks wait")
            return
        left, gain, step = first, 1, 0
        while left - self.floor_kib >= MIB_KIB and share < WAITED_MAX and gain * 4 >= step:
            step = int(max(left * STEP_SHARE, MIB_KIB) * (1 - share / WAITED_MAX))
            step = min(step, left - self.floor_kib)
            if not self.reclaim(step):
                log("page cache stays: the kernel takes no such order, or would swap")
                return
            if not stay_idle():
                raise BusyError
            before, left = left, self.size_kib()
            share, gain = self.waited_share(), before - left
        log(f"page cache given back: {(first - left) // MIB_KIB} MiB; {left // MIB_KIB} MiB stay")
