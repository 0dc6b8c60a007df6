"""A small fleet in several clusters, by its command line; as a program one that kills a process amid its jobs."""

import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

from pagetide import cli
from pagetide.fleet.runs import jobs
from pagetide.fleet.runs.jobs import Done
from pagetide.fleet.runs.store import Results

COMMAND = "fleet --vms 24 --days 2 --settings linux-9 --place quantile:0.9,peak-of-sum --draws 3 --host-ram 32GiB"
CLUSTERS, SETTINGS = 3, 4
JOBS = CLUSTERS * SETTINGS

RESULTS = (
    "summary.json",
    "report.html",
    *(f"{name}.{end}" for name in ("held", "vms", "plans", "hosts") for end in ("csv", "parquet")),
)
"""The files that are the same for the same command, however it is run."""


def run(folder: Path, more: str = "") -> int:
    """Have the command leave its results in a folder; its status."""
    with patch.object(jobs, "CLUSTER_VMS", 8):
        return cli.main([*COMMAND.split(), "--out", str(folder), *more.split()])


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What is in these files."""
    return {name: (folder / name).read_bytes() for name in RESULTS}


def main(folder: str, more: str, victim: str = "") -> int:
    """Run it as a program; once a job is done, kill a process."""
    add = Results.add

    def kill_after(self: Results, done: Done) -> None:
        add(self, done)
        if victim and len(self.done) == 1:
            os.kill(int(victim), signal.SIGKILL)

    Results.add = kill_after  # type: ignore[method-assign]
    return run(Path(folder), more)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
