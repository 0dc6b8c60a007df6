"""For how long a guest kept the loop waiting: not at work for it, but for something that its front-end holds.

A front-end shares its memory file with us and may call on it whatever it likes. While it allocates gigabytes of the
file it holds the inode's lock, and a punch of ours waits for that, in the kernel, beyond any signal (shmem_fallocate,
mm/shmem.c, Linux 6.12). All other guests wait, too. CPU time does not show it, so the time itself is looked at: what an
action took, less the CPU time, less the time in which the thread was ready to run and others had the processor
(schedstat, Documentation/scheduler/sched-stats.rst, Linux 6.12).

What must not be held against a guest is taken out: actions in which a page had to come from swap or a disk (major
faults), and guests with memory on a disk, where punching waits for the disk. Those who never kept anybody waiting cost
two readings of the clock an action; only of one that did is more read, from the next action on.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SUSPECT_S = 0.01
"""Who kept the loop for so long once, whatever the reason, is watched from then on, for `WATCHED_S` at least."""

WATCHED_S = 600.0
"""Who is watched for so long and keeps nobody waiting is watched no more: most are suspects for what others did.

The first time of each such while is not charged, and so a guest's are rare enough.
"""

HELD_MIN_S = 0.002
"""A shorter wait is no hold-up: locks of the kernel's own take as long."""

_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Waits(NamedTuple):
    """What this thread has waited for so far.

    Attributes:
        queue_s: time in which it could have run and others did.
        major_faults: pages that had to be read.
    """

    queue_s: float
    major_faults: int


def thread_waits() -> Waits | None:
    """What the calling thread has waited for; None where the kernel does not tell."""
    try:
        _, queue_ns, _ = _SCHEDSTAT.read_bytes().split()
    except OSError:
        return None
    return Waits(int(queue_ns) / 1e9, resource.getrusage(resource.RUSAGE_THREAD).ru_majflt)


class HoldUps:
    """Times one action after the other: `begin`, then `end`."""

    def __init__(
        self,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        waits: Callable[[], Waits | None] | None = thread_waits,
    ) -> None:
        """Suspect nobody.

        Args:
            clock_s: the time that passes for everybody.
            waits: what the calling thread has waited for; None if nobody is to be watched.
        """
        self._clock_s, self._waits = clock_s, waits
        self._suspects: dict[object, float] = {}  # when each has last kept the loop waiting
        self._start_s = 0.0
        self._before: Waits | None = None

    def begin(self, party: object) -> None:
        """Something is done for a party from now on."""
        self._before = self._waits() if self._waits is not None and party in self._suspects else None
        self._start_s = self._clock_s()

    def end(self, party: object, used_s: float) -> float:
        """It is done, and took this much CPU time: for how long the party kept the loop waiting, in seconds."""
        now_s = self._clock_s()
        blocked_s = now_s - self._start_s - used_s
        if blocked_s < HELD_MIN_S:
            if self._suspects.get(party, now_s) < now_s - WATCHED_S:
                self.forget(party)
            return 0.0
        if party not in self._suspects:
            self.note(party, blocked_s)
            return 0.0
        now = None if self._waits is None else self._waits()
        if now is None or self._before is None or now.major_faults != self._before.major_faults:
            return 0.0
        held_s = blocked_s - (now.queue_s - self._before.queue_s)
        if held_s < HELD_MIN_S:
            return 0.0
        self._suspects[party] = now_s
        return held_s

    def note(self, party: object, blocked_s: float) -> None:
        """A party kept the loop for so long, whatever the reason, without being watched."""
        if blocked_s >= SUSPECT_S:
            self._suspects[party] = self._clock_s()

    def watches(self, party: object) -> bool:
        """Whether more is read of a party's actions, so that each must be timed by itself."""
        return party in self._suspects and self._waits is not None

    def is_suspect(self, party: object) -> bool:
        """Whether it has kept the loop for long, and not too long ago."""
        return party in self._suspects

    def forget(self, party: object) -> None:
        """A party is no more."""
        self._suspects.pop(party, None)
