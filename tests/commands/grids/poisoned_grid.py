"""A grid on a real pool of processes, in which one cell kills whoever runs it, and another one does so once.

Prints, as JSON, which seeds failed with which outcome, and how many workers there were.
"""

import json
import os
import signal
import sys
from pathlib import Path

from pagetide.compare.grid.worker import Job, lost_job, run_job
from pagetide.compare.results.cells import Cell
from pagetide.compare.results.records import Record
from pagetide.machine.config import RunConfig
from pagetide.workers.execution import Execution
from pagetide.workers.pools import ProcessPool

KILLS, KILLS_ONCE, RUNS = 3, 7, 10


def run(job: Job) -> Record:
    """Run a job, or kill the process that would."""
    seed, folder = job.cell.config.seed, Path(job.costs_name)
    with (folder / "workers").open("a") as workers:
        workers.write(f"{os.getpid()}\n")
    once = folder / "killed once"
    if seed == KILLS or (seed == KILLS_ONCE and not once.exists()):
        if seed == KILLS_ONCE:
            once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_job(job)


def main(folder: str) -> None:
    """Run the grid."""
    taken: list[Record] = []
    pool = ProcessPool(2, run=run)
    # Nothing is simulated: without costs each run fails at once, which is an outcome like any other.
    jobs = [Job(Cell(RunConfig(seed=seed), "simulated"), None, folder) for seed in range(RUNS)]
    try:
        Execution(jobs, pool, lost_job).run(taken.append, lambda: False, lambda text: None)
    finally:
        pool.close()
    workers = set((Path(folder) / "workers").read_text().split())
    outcomes = sorted((record.cell.config.seed, record.outcome) for record in taken)
    sys.stdout.write(json.dumps({"outcomes": outcomes, "workers": len(workers)}))


if __name__ == "__main__":
    main(sys.argv[1])
