"""`pagetide show`: the curves and figures of one run of a grid again, in the terminal."""

import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.compare.results.records import Run, StoreError
from pagetide.compare.results.store import DATABASE, Store
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.terminal.summary import summarise
from pagetide.terminal.views import chart_text


def show(prefix: str | None, folder: Path | None) -> int:
    """Show one run, or list all; an exit status.

    Args:
        prefix: the beginning of the run's key; None lists them.
        folder: where the results are; None is this folder, or the newest `compare-*` in it.

    Raises:
        StoreError: there are no results, or no such run, or more than one.
    """
    fall_back_to_ascii(sys.stdout)
    console = Console(highlight=False)
    with Store.open(folder or _newest_folder(), read_only=True) as store:
        if prefix is None:
            for run in store.runs():
                console.print(Text(f"{run.key}  {_what(run)}{'  failed' if run.failed else ''}"), soft_wrap=True)
            return STATUS_OK
        run = store.find(prefix)
        result = store.result(run)
    console.print(Text(f"{run.key}: {_what(run)}, {run.cell.machine}", style="bold"), soft_wrap=True)
    console.print(Text(run.cell.replay), soft_wrap=True)
    if result.samples.t_s:
        end_s = max(result.samples.t_s[-1], 1.0)
        console.print(chart_text(result.samples.rows(), result.config.ram_bytes, console.width, 0.0, end_s))
    if any(value is not None for value in run.figures.values()):
        console.print(summarise(result))
    else:
        console.print(Text(run.outcome, style="bold red"), soft_wrap=True)
    return STATUS_FAILED if run.failed else STATUS_OK


def _what(run: Run) -> str:
    """What was run, in a few words."""
    config = run.cell.config
    faults = f", {' '.join(config.faults)}" if config.faults else ""
    return f"{config.design} on {config.workload}{faults}, oom {config.oom}, order {config.order}, seed {config.seed}"


def _newest_folder() -> Path:
    if Path(DATABASE).is_file():
        return Path()
    found = sorted(Path().glob(f"compare-*/{DATABASE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise StoreError(f"there is no {DATABASE} here, and none in a folder compare-*: say where with --in DIR")
    return found[-1].parent
