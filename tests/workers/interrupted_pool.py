"""A pool whose worker is killed just when it hands over a large record; prints what became of the job."""

import os
import signal
import sys
import threading
import time

from pagetide.compare.grid.worker import Job, lost_job
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import Record
from pagetide.machine.config import RunConfig
from pagetide.workers.pools import ProcessPool

OUTCOME_CHARS = 1 << 27
"""Some tenths of a second on a pipe."""

HANDING_OVER = {"_send", "_leave_result"}
"""What the worker is in while it writes to a pipe (of CPython's `multiprocessing`), or to its file."""


def run(job: Job) -> Record:
    """Make a record that is much larger than a pipe, and have the worker killed while it writes that."""
    threading.Thread(target=_kill_amid, args=(threading.get_ident(),), daemon=True).start()
    return lost_job(job, "x" * OUTCOME_CHARS)


def _kill_amid(worker: int) -> None:
    while sys._current_frames()[worker].f_code.co_name not in HANDING_OVER:
        time.sleep(0.001)
    time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Hand it a job, see the worker lost, and close the pool."""
    pool = ProcessPool(1, run=run)
    error = pool.submit(Job(Cell(RunConfig(), "simulated"))).exception()
    pool.close()
    sys.stdout.write(type(error).__name__)


if __name__ == "__main__":
    main()
