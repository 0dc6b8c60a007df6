"""`pagetide fleet`: a fleet's usage to what its hosts hold, how many VMs fit, and how often hosts are short."""

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from pagetide.commands.fleet.asking import Hosts, Manner
from pagetide.commands.fleet.choices import SHOWN, Choice, opened, progress
from pagetide.commands.status import STATUS_FAILED, STATUS_INTERRUPTED, STATUS_OK
from pagetide.fleet.guests.mixture import Mixture
from pagetide.fleet.guests.response import ALL_RETURNS, NOTHING_RETURNS
from pagetide.fleet.hosts.cluster import Question
from pagetide.fleet.hosts.cpu import cpu_of
from pagetide.fleet.learning.check import Verdict, read_verdicts
from pagetide.fleet.learning.chosen import Chosen, choose, parse_setting
from pagetide.fleet.learning.responses import read_responses
from pagetide.fleet.picture import picture
from pagetide.fleet.runs.export import export
from pagetide.fleet.runs.jobs import Carrying, Divisible, Done, Job, cut, lost, run_job
from pagetide.fleet.runs.kept import keep
from pagetide.fleet.runs.store import Results
from pagetide.fleet.runs.summary import Asked, Summary, summary
from pagetide.fleet.usage.canonical import Source, UsageError
from pagetide.fleet.usage.made_up import MadeUp
from pagetide.fleet.usage.oddities import RULES, Oddities
from pagetide.machine.costs import Costs, read_costs
from pagetide.machine.versions import sources_digest, versions
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.terminal.interrupt import Interrupt
from pagetide.terminal.progress import GridProgress
from pagetide.whole_file import write_whole
from pagetide.workers.database import ResultsError
from pagetide.workers.execution import Execution, PoolError
from pagetide.workers.pools import ClusterPool, ExecutorPool, Pool, ProcessPool

_WORTH_PROCESSES = 50 << 20
"""From so many VMs times steps times settings on, processes are started: for less they would not be worth it."""


class _Fleet(msgspec.Struct):
    """All that is known before a job is run."""

    source: Divisible
    oddities: Oddities
    chosen: list[Chosen]
    question: Question
    costs: Costs
    risk_h: float
    checked: tuple[str, list[Verdict]] | None

    @property
    def mixtures(self) -> list[Mixture]:
        return [Mixture.of(NOTHING_RETURNS), *(one.mixture for one in self.chosen), Mixture.of(ALL_RETURNS)]

    @property
    def asked(self) -> list[Asked]:
        chosen = [Asked(one.mixture.name, one.settings) for one in self.chosen]
        return [Asked(NOTHING_RETURNS.name, ()), *chosen, Asked(ALL_RETURNS.name, ())]

    @property
    def versions(self) -> dict[str, str]:
        """Of what computes."""
        code = versions()
        return {name: code[name] for name in ("pagetide", "python", "numpy", "numba")}

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what comes out of the jobs."""
        return {
            "about": self.source.about,
            "grid": self.source.grid,
            "oddities": self.oddities,
            "chosen": self.chosen,
            "question": self.question,
            "usage": self.source.digest,
            "versions": self.versions,
            "sources": sources_digest(),
        }


def fleet(choice: Choice, settings: Sequence[str], hosts: Hosts, manner: Manner) -> int:
    """Say what the hosts of a fleet hold, how many VMs fit, and how often hosts are short; an exit status.

    Args:
        choice: which fleet.
        settings: under which settings, beside the bounds; none for SHOWN.
        hosts: what hosts are like.
        manner: how to run it, and what to keep.

    Raises:
        ConfigError: the arguments do not go together, or no such response was learned.
    """
    choice.check()
    manner.check(choice)
    for name in settings:
        parse_setting(name)
    seed = 1 if choice.seed is None else choice.seed
    question, costs = hosts.question(seed), read_costs(manner.costs)
    chosen = choose(read_responses(manner.responses), settings or SHOWN, manner.guests)
    for part in {setting for one in chosen for setting in one.settings}:
        cpu_of(part, 0, 0, costs)  # before hours of work: the costs may have none of its backing
    checked = None if manner.checked is None else read_verdicts(manner.checked)
    fall_back_to_ascii(sys.stdout)
    fall_back_to_ascii(sys.stderr)
    try:
        with _divisible(choice, manner.drawn, seed) as (source, oddities):
            whole = _Fleet(source, oddities, chosen, question, costs, hosts.risk_h, checked)
            return _answer(whole, manner)
    except (UsageError, ResultsError, PoolError) as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED


@contextlib.contextmanager
def _divisible(choice: Choice, drawn: int | None, seed: int) -> Iterator[tuple[Divisible, Oddities]]:
    """The usage that was asked for, as workers can have it, and what was odd in it."""
    with opened(choice) as source:
        if isinstance(source, MadeUp):
            yield source, Oddities()
            return
        with tempfile.TemporaryDirectory(prefix="pagetide-fleet-", ignore_cleanup_errors=True) as folder:
            with progress(len(source.vms), "VMs read") as tell:
                kept, oddities = keep(source, Path(folder), tell)
            yield (kept if drawn is None else kept.drawn(drawn, seed)), oddities


def _answer(whole: _Fleet, manner: Manner) -> int:
    """Run what is left to run, and say what came of it."""
    with contextlib.ExitStack() as resources:
        folder = manner.out or Path(
            resources.enter_context(tempfile.TemporaryDirectory(prefix="pagetide-fleet-", ignore_cleanup_errors=True))
        )
        resumed = resources.enter_context(Results.resume(folder, whole.identity)) if manner.resume else None
        done = set() if resumed is None else resumed.done
        jobs = [job for job in cut(whole.source, whole.mixtures, whole.question) if job.number not in done]
        pool = resources.enter_context(contextlib.closing(_pool(jobs, whole.source, manner)))
        results = resumed or resources.enter_context(Results.create(folder, whole.identity))
        interrupted = bool(jobs) and _run(jobs, pool, len(whole.asked), results)
        if interrupted:
            _tell_rest(manner)
            return STATUS_INTERRUPTED
        found = summary(results, whole.source.grid, whole.asked, whole.risk_h, whole.costs)
        if manner.out is not None:
            export(results)
            write_whole(folder / "summary.json", _json(whole, found))
            _tell_report(whole, results, found)
        print(_json(whole, found).decode() if manner.as_json else picture(whole.source, whole.oddities, found))
    return STATUS_OK


def _tell_report(whole: _Fleet, results: Results, found: Summary) -> None:
    from pagetide.fleet.report.told import Told
    from pagetide.fleet.report.writing import write_report

    source = whole.source
    told = Told(
        about=source.about,
        grid=source.grid,
        oddities=whole.oddities,
        question=whole.question,
        found=found,
        results=results,
        versions=whole.versions,
        chosen=whole.chosen,
        costs=whole.costs,
        checked=whole.checked,
    )
    print(f"report: {write_report(told)}", file=sys.stderr)


def _run(jobs: Sequence[Job], pool: Pool[Job, Done], settings: int, results: Results) -> bool:
    """Run jobs, of so many settings, on these workers; whether Ctrl-C ended that.

    Raises:
        ResultsError: what came out cannot be kept, or a job lost its worker again and again.
        PoolError: the workers are of no use.
    """
    console = Console(stderr=True, highlight=False)
    live = console.is_interactive and sys.stderr.isatty()
    count = sum(job.end - job.first for job in jobs)
    what = f"VMs under {settings} settings together"
    problems = list[str]()
    with Interrupt() as interrupt, GridProgress(console, count, live=live, what=what) as shown:

        def take(done: Done) -> None:
            if done.problem:
                problems.append(done.problem)
            else:
                results.add(done)
            shown.ended(failed=bool(done.problem), cells=len(done.names))

        def is_stopped() -> bool:
            shown.show()
            return interrupt.happened

        Execution(jobs, pool, lost).run(take, is_stopped, shown.note)
    if problems:
        raise ResultsError(problems[0])
    return interrupt.happened


def _pool(jobs: Sequence[Job], source: Source, manner: Manner) -> Pool[Job, Done]:
    """Workers for these jobs: a thread of this process if there is little to do."""
    if manner.cluster is not None:
        return Carrying(ClusterPool(manner.cluster, run_job))
    cells = sum(job.end - job.first for job in jobs) * source.grid.steps
    workers = manner.workers or (len(os.sched_getaffinity(0)) if cells >= _WORTH_PROCESSES else 1)
    if workers == 1:
        return ExecutorPool(lambda: ThreadPoolExecutor(1), 2, run_job)
    return ProcessPool(workers, run_job)


def _tell_rest(manner: Manner) -> None:
    """What becomes of what is done."""
    if manner.out is None:
        print("pagetide: nothing is kept without --out", file=sys.stderr)
    else:
        line = shlex.join(["--resume", "--out", str(manner.out)])
        print(f"pagetide: what is done is in {manner.out}; the same command with {line} goes on", file=sys.stderr)


def _json(whole: _Fleet, found: Summary) -> bytes:
    """All that came out, as JSON."""
    odd = {
        name: {"what": RULES[name].what, "rule": RULES[name].rule, **count._asdict()}
        for name, count in whole.oddities.counts.items()
    }
    question = whole.question
    asked = {
        "host": question.host._asdict(),
        "plans": [plan.name for plan in question.plans],
        "on_pressure": question.answer,
        "draws": question.draws,
        "seed": question.seed,
    }
    settings = [_named(one) for one in found.settings]
    answer = {
        "about": whole.source.about,
        "grid": whole.source.grid._asdict(),
        "asked": asked,
        **found._asdict(),
        "settings": settings,
        "oddities": odd,
    }
    return msgspec.json.format(msgspec.json.encode(answer), indent=2)


def _named(one: Any) -> Any:
    """A result with the names of its parts, which JSON would have as lists."""
    if isinstance(one, msgspec.Struct):
        return {name: _named(getattr(one, name)) for name in one.__struct_fields__}
    if isinstance(one, tuple) and hasattr(one, "_asdict"):
        return {name: _named(value) for name, value in one._asdict().items()}
    return [_named(value) for value in one] if isinstance(one, tuple) else one
