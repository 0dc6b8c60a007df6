"""`pagetide compare`, `report` and `show`: all designs beside each other, and what came of it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from pagetide.cli.app import command, listed, whole

_GRID = Group("Grid", sort_key=1)
_SETTINGS = Group("Settings of every run", sort_key=2)
_HOW = Group("How it is run", sort_key=3)

_LIST = Parameter(negative="", show_default=False, group=_GRID, consume_multiple=True)

_COMPARE_EXAMPLES = """
Examples:

    pagetide compare
    pagetide compare --machine live --quick
    pagetide compare --designs scan,cursor,shared --workloads burst,day --faults none,stop@5:10+ring=8 --repeat 5
    pagetide compare --resume --out compare-20261123-0410
    pagetide compare --cluster tcp://10.0.0.1:8786 --out results

Exit status: 0 all is well, though guests may have run out of memory; 1 runs failed otherwise, or the results cannot be
written; 2 bad arguments; 130 Ctrl-C.
"""


@command(_COMPARE_EXAMPLES)
def compare(
    *,
    designs: Annotated[tuple[str, ...], _LIST] = (),
    workloads: Annotated[tuple[str, ...], _LIST] = (),
    faults: Annotated[tuple[str, ...], _LIST] = (),
    oom: Annotated[tuple[str, ...], _LIST] = (),
    machine: Annotated[Literal["live", "simulated"] | None, Parameter(group=_GRID)] = None,
    repeat: Annotated[int | None, Parameter(converter=whole, group=_GRID)] = None,
    quick: Annotated[bool, Parameter(negative="", show_default=False, group=_GRID)] = False,
    seed: Annotated[int | None, Parameter(converter=whole, group=_SETTINGS)] = None,
    ram: Annotated[str | None, Parameter(group=_SETTINGS)] = None,
    duration: Annotated[float | None, Parameter(group=_SETTINGS)] = None,
    config: Annotated[Path | None, Parameter(group=_SETTINGS)] = None,
    costs: Annotated[Path | None, Parameter(group=_SETTINGS)] = None,
    out: Annotated[Path | None, Parameter(group=_HOW)] = None,
    resume: Annotated[bool, Parameter(negative="", show_default=False, group=_HOW)] = False,
    jobs: Annotated[int | None, Parameter(converter=whole, group=_HOW)] = None,
    cluster: Annotated[str | None, Parameter(group=_HOW)] = None,
) -> int:
    """Run every design on every workload, with and without faults, and write a report that puts them side by side.

    Each combination is run --repeat times with seeds that follow each other, the same for every design. What was
    measured goes to results.duckdb in --out, and to Parquet files beside it. What does not fit together is left out,
    and named. A run that fails is a row that says why. Lists are written with commas, or options given more than once.

    Args:
        designs: Only these designs; `pagetide run --help` names them. [default: all]
        workloads: Only these workloads: burst, web, database, churn, small, day. [default: all six]
        faults: One condition each: none; stop, the host stops while much is freed; slow, it is slower than the guest
            frees; or faults as `run` has them, joined by +. [default: none,stop,slow]
        oom: What is done against false OOMs: none, wait, cap, swap. [default: wait]
        machine: simulated: in virtual time, one to two minutes for all on two
            processors. live: on real memory, one run at a time, each as long
            as it takes. [default: simulated]
        repeat: How many runs of each combination. [default: 3; 1 with --quick]
        quick: Only the mail's case: one burst, and the host stopped while its memory is freed.
        seed: The first seed. [default: 1]
        ram: Guest memory. [default: 2GiB; 512MiB for small, 1GiB with --quick]
        duration: Seconds that web, database, churn, small and day go on. [default: 30]
        config: A TOML file with any of the settings of `pagetide run`, by the same names, for every run.
        costs: For --machine simulated, a file that `pagetide calibrate` wrote. [default: as for `pagetide run`]
        out: The folder for results and report. [default: one named after the time, such as compare-20261123-0410]
        resume: Go on with the grid in --out: what is done is not repeated, and the grid's options need not be given.
        jobs: How many runs at once. [default: one a processor, fewer where memory is scarce; 1 if live]
        cluster: Have a Dask cluster run them, by its scheduler's address.
    """
    from pagetide.commands.compare import Manner
    from pagetide.commands.compare import compare as compare_all
    from pagetide.compare.grid.axes import Choice
    from pagetide.machine.settings.file import read_file

    settings: dict[str, Any] = read_file(config) if config else {}
    settings |= {
        name: value for name, value in (("seed", seed), ("ram", ram), ("duration", duration)) if value is not None
    }
    choice = Choice(
        designs=listed(designs) or None,
        workloads=listed(workloads) or None,
        faults=listed(faults) or None,
        oom=listed(oom) or None,
        machine=machine or "simulated",
        repeat=repeat,
        settings=settings,
        quick=quick,
    )
    manner = Manner(out=out, resume=resume, jobs=jobs, cluster=cluster, costs=costs)
    return compare_all(choice if choice != Choice() or machine else None, manner)


_REPORT_EXAMPLES = """
Examples:

    pagetide report compare-20261123-0410
    pagetide report compare-20261123-0410 --json - | jq .configurations
    pagetide report compare-20261123-0410 --csv tables
    pagetide report compare-20261123-0410 --markdown docs/choosing.md

Exit status: 0 done; 1 a file cannot be written; 2 bad arguments, or no results.
"""


@command(_REPORT_EXAMPLES)
def report(
    folder: Path,
    /,
    *,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    csv: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    markdown: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
) -> int:
    """Make the report of a comparison again from its results; or give its tables to other programs.

    With --json, --csv or --markdown no report is made. Tables are of all runs, of configurations (medians over the
    repeats that did not fail, with the least and the most), and as CSV also of bursts and samples.

    Args:
        folder: Where `pagetide compare` wrote its results.
        json: Write the tables to this file as JSON; - is standard output.
        csv: Write all tables into this folder as CSV; or the runs alone into a file if it ends in .csv; - is standard
            output.
        markdown: Write which configuration to use for which guest, and what became of the thread's claims, to this
            file as Markdown; - is standard output.
    """
    from pagetide.commands.report import report as report_on

    return report_on(folder, json, csv, markdown)


_SHOW_EXAMPLES = """
Examples:

    pagetide show
    pagetide show 3f9a
    pagetide show 3f9a --in compare-20261123-0410 | less

Exit status: 0 done; 1 the run had failed; 2 bad arguments, no results, or no such run.
"""


@command(_SHOW_EXAMPLES)
def show(
    run: str | None = None,
    /,
    *,
    in_: Annotated[Path | None, Parameter(name="--in")] = None,
    web: str | None = None,
) -> int:
    """Show the curves and figures of one run, as `pagetide run` did; or list the runs of a comparison.

    Args:
        run: The run's key in a comparison, or as much of its beginning as no other one has; or a file of `pagetide run
            --json` or `pagetide boot --json`, whose name ends with .json. [default: list all of a comparison]
        in_: Where the results are. [default: this folder, or the newest compare-* in it]
        web: Show a page of the run, too, at this address, such as 127.0.0.1:8080, until Ctrl-C. It needs the extra web
            (Starlette, uvicorn).
    """
    from pagetide.commands.show import show as show_run

    return show_run(run, in_, web)
