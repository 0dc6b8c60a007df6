"""`pagetide compare`: a grid from its options to a folder of results and a report."""

import contextlib
import datetime as dt
import hashlib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from pagetide.commands.status import STATUS_FAILED, STATUS_INTERRUPTED, STATUS_OK
from pagetide.compare.grid.axes import Choice, Grid, grouped, make_grid
from pagetide.compare.grid.resume import cells_left
from pagetide.compare.grid.worker import Job, by_work, lost_job, run_job
from pagetide.compare.results.arrivals import Arrivals
from pagetide.compare.results.cells import without_duplicates
from pagetide.compare.results.records import Record, Run
from pagetide.compare.results.spread import REPEATS_MIN
from pagetide.compare.results.store import Store
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.costs import Costs, default_path, read_costs
from pagetide.machine.versions import versions
from pagetide.memory.available import available_bytes
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.terminal.interrupt import Interrupt
from pagetide.terminal.progress import GridProgress
from pagetide.workers.database import ResultsError
from pagetide.workers.execution import Execution, PoolError
from pagetide.workers.pools import ClusterPool, Pool, ProcessPool
from pagetide.workload.kept import KEPT_BYTES_MAX

_Pool = Pool[Job, Record]

_FAILED_SHOWN_MAX = 10
_JOBS_MAX = 256


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a grid is run, whatever is in it.

    Attributes:
        out: the folder for the results; None is a new one named after the time.
        resume: go on with the grid in `out`.
        jobs: how many runs at once; None is one a processor, if there is memory for that, and one at a time if live.
        cluster: address of a Dask scheduler that has them run; None for processes of this machine.
        costs: the file of what things cost; None is what `run --machine simulated` takes.
    """

    out: Path | None = None
    resume: bool = False
    jobs: int | None = None
    cluster: str | None = None
    costs: Path | None = None

    def check(self) -> None:
        """Raise ConfigError for what cannot be had together."""
        if self.resume and self.out is None:
            raise ConfigError("--resume needs --out, the folder with the grid to go on with")
        if self.jobs is not None and not 1 <= self.jobs <= _JOBS_MAX:
            raise ConfigError(f"there must be from 1 to {_JOBS_MAX} jobs, not {self.jobs}")
        if self.jobs is not None and self.cluster is not None:
            raise ConfigError("--jobs is for processes of this machine: with --cluster its workers decide")

    def check_live(self) -> None:
        """Raise ConfigError for what live runs do not have."""
        if self.cluster is not None:
            raise ConfigError("live runs measure this machine, so they cannot be run on a cluster")
        if self.jobs not in (None, 1):
            raise ConfigError("live runs would disturb each other, so they go one at a time: --jobs 1")
        if self.costs is not None:
            raise ConfigError("--costs goes with --machine simulated: a live machine takes the time that it takes")

    def resumed(self, folder: Path) -> str:
        """The command line that goes on with the grid in this folder."""
        options = {"--jobs": self.jobs, "--cluster": self.cluster, "--costs": self.costs}
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        return shlex.join(["pagetide", "compare", "--resume", "--out", str(folder), *given])


def _processes(jobs: int) -> _Pool:
    return ProcessPool(jobs, run_job)


def compare(choice: Choice | None, manner: Manner, *, make_pool: Callable[[int], _Pool] = _processes) -> int:
    """Run a grid, keep what it measured, and write the report; an exit status.

    Args:
        choice: what to compare; None if no option said so: the default grid, or with `resume` the one that is planned.
        manner: how to run it.
        make_pool: makes workers for so many jobs at once.

    Raises:
        ConfigError: a setting is out of its range, or the folder's results are in the way; nothing was run.
    """
    manner.check()
    fall_back_to_ascii(sys.stderr)
    grid = None if manner.resume and choice is None else _whole_grid(choice or Choice())
    folder = manner.out or _dated_folder()
    with contextlib.ExitStack() as resources:
        opened = resources.enter_context(Store.open(folder)) if manner.resume else None
        cells = opened.planned() if opened is not None else grid.cells if grid is not None else []
        live = any(cell.machine == "live" for cell in cells)
        if live:
            manner.check_live()
        costs, costs_name = (None, "") if live else _costs(manner.costs)
        if opened is not None:
            store = opened
            cells = cells_left(store, None if grid is None else grid.cells, versions(), costs_name)
        pool = _pool(manner, make_pool, [cell.config for cell in cells], live=live)
        resources.callback(pool.close)
        if opened is None:
            assert grid is not None
            store = resources.enter_context(Store.create(folder))
            store.plan(grid.cells, grid.left_out)
        for sentence in grouped(store.left_out()):
            _tell(sentence)
        _tell(f"{len(cells)} runs to do; results go to {folder}")
        interrupted, problem = _execute([Job(cell, costs, costs_name) for cell in by_work(cells)], pool, store)
        status = _sum_up(store, manner, interrupted=interrupted, problem=problem)
    if status != STATUS_INTERRUPTED and problem is None:
        write_report(folder)
    return status


def _whole_grid(choice: Choice) -> Grid:
    """The cells of a choice; to a default grid come those that test the thread's claims."""
    grid = make_grid(choice)
    if choice.is_narrowed and not choice.is_live_quick:
        return grid
    from pagetide.compare.claims.registry import claim_cells

    repeats = choice.repeats if choice.repeat is not None else max(choice.repeats, REPEATS_MIN)
    more = claim_cells(choice.machine, grid.cells[0].config.seed, repeats)
    return grid._replace(cells=without_duplicates([*grid.cells, *more]))


def _pool(manner: Manner, make_pool: Callable[[int], _Pool], configs: Sequence[RunConfig], *, live: bool) -> _Pool:
    """Workers for runs of these settings, as many as there is memory for.

    Raises:
        ConfigError: there is not enough for one of the runs.
    """
    if manner.cluster is not None:
        return ClusterPool(manner.cluster, run_job)
    if live:
        return make_pool(1)
    from pagetide.machine.kernels.ahead import SIMULATED, compile_kernels
    from pagetide.machine.simulated.memory_need import check_memory, needed_bytes

    largest = max(configs, key=needed_bytes, default=None)
    if largest is not None:
        check_memory(largest)
    compile_kernels(SIMULATED, _tell)
    fitting = available_bytes() // ((needed_bytes(largest) if largest is not None else 0) + KEPT_BYTES_MAX)
    return make_pool(manner.jobs or max(1, min(len(os.sched_getaffinity(0)), fitting)))


def _costs(path: Path | None) -> tuple[Costs, str]:
    """What things cost, and the digest and name of that."""
    costs = read_costs(path)
    name = path or (default_path() if default_path().is_file() else "built in")
    return costs, f"{hashlib.sha256(msgspec.json.encode(costs)).hexdigest()[:12]} {name}"


def _execute(jobs: Sequence[Job], pool: _Pool, store: Store) -> tuple[bool, str | None]:
    """Run the jobs; whether Ctrl-C ended that, and what else did."""
    console = Console(stderr=True, highlight=False)
    live = console.is_interactive and sys.stderr.isatty()  # FORCE_COLOR makes rich call any file a terminal
    with Interrupt() as interrupt, GridProgress(console, len(jobs), live=live) as progress:
        arrivals = Arrivals(store, lambda record: progress.ended(failed=record.failed))

        def is_stopped() -> bool:
            arrivals.keep_old()
            progress.show()
            return interrupt.happened

        try:
            with arrivals:
                Execution(jobs, pool, lost_job).run(arrivals.take, is_stopped, progress.note)
        except (PoolError, ResultsError) as error:
            return False, str(error)
        return interrupt.happened, None


def _sum_up(store: Store, manner: Manner, *, interrupted: bool, problem: str | None) -> int:
    """Write the Parquet files, and say how it went; an exit status."""
    try:
        store.export()
    except ResultsError as error:
        problem = problem or str(error)
    runs = store.runs()
    failed = [run for run in runs if run.failed]
    broken = [run for run in failed if not run.ran_out_of_memory]
    _tell_failed(broken, store.folder)
    without = Counter(f"{run.cell.config.design} on {run.cell.config.workload}" for run in failed if run not in broken)
    if without:
        _tell("guests that ran out of memory: " + ", ".join(f"{what} ({count})" for what, count in without.items()))
    unfinished = len(store.planned()) - len(runs)
    print(f"{len(runs)} runs in {store.folder}, {len(failed)} failed", flush=True)
    if problem is not None:
        print(f"pagetide: {problem}", file=sys.stderr)
    if unfinished:
        _tell(f"{unfinished} runs are left: {manner.resumed(store.folder)}")
    if interrupted:
        return STATUS_INTERRUPTED
    return STATUS_FAILED if problem is not None or broken else STATUS_OK


def _tell_failed(broken: Sequence[Run], folder: Path) -> None:
    """Say what broke, and how to see it again."""
    for run in broken[:_FAILED_SHOWN_MAX]:
        _tell(f"failed: {run.outcome}\n  replay: {run.cell.replay}")
    if len(broken) > _FAILED_SHOWN_MAX:
        _tell(f"and {len(broken) - _FAILED_SHOWN_MAX} more failed runs, in `pagetide report {folder} --csv -`")


def write_report(folder: Path) -> None:
    """Write the report of the results in a folder, and say where it is."""
    from pagetide.compare.report import writing as report

    shown = sys.stderr.isatty()

    def tell(drawn: int, conditions: int) -> None:
        if shown:
            print(f"\rdrawing condition {drawn} of {conditions}", end="", file=sys.stderr, flush=True)

    if not shown:
        _tell("writing the report")
    path = report.write_report(folder, tell)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(f"report: {path}", flush=True)


def _dated_folder() -> Path:
    """`compare-20261123-0410` here, or with a number where there is one already."""
    name = f"compare-{dt.datetime.now().astimezone():%Y%m%d-%H%M}"
    folders = (Path(name if number == 1 else f"{name}-{number}") for number in range(1, 1000))
    return next(folder for folder in folders if not folder.exists())


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
