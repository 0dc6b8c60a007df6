"""Of what kinds the memory is that a process has resident, as time goes by."""

import re
from pathlib import Path

_LINE = re.compile(r"^(RssAnon|RssFile|RssShmem):\s+(\d+) kB$", re.MULTILINE)


class Resident:
    """Looks at a process.

    Attributes:
        times_s: when, of the wall clock.
        bytes: what there was each time, by the names of proc_pid_status(5): RssAnon is its own, RssFile of programs and
            libraries, RssShmem what it shares, as guests' memory.
    """

    times_s: list[float]
    bytes: dict[str, list[int]]

    def __init__(self, pid: int) -> None:
        """Not yet."""
        self._status = Path(f"/proc/{pid}/status")
        self.times_s = []
        self.bytes = {"RssAnon": [], "RssFile": [], "RssShmem": []}

    def look(self, now_s: float) -> None:
        """Look once; of a process that has ended there is nothing to see."""
        found = dict(_LINE.findall(self._status.read_text()))
        if found:
            self.times_s.append(now_s)
            for kind, sizes in self.bytes.items():
                sizes.append(int(found[kind]) * 1024)
