"""A process that writes a folder's report, drawn by two others whatever there is to draw, and says that they are two.

What they leave to the process that started them ends with it.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from pagetide.compare.report import bodies
from pagetide.compare.report.bodies import Body, Wanted
from pagetide.compare.report.writing import write_report
from pagetide.workers.pools import ProcessPool


class _Told(ProcessPool[Wanted, Body]):
    def __init__(self, jobs: int, run: Callable[[Wanted], Body]) -> None:
        sys.stdout.write(f"{jobs} processes\n")
        super().__init__(jobs, run)


def main(folder: str) -> None:
    """Write the report."""
    bodies._PANELS_MIN = 3
    os.sched_getaffinity = lambda _: {0, 1}
    setattr(bodies, "ProcessPool", _Told)  # noqa: B010 - it does not export it
    write_report(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
