"""`pagetide show`: the curves and figures of one run again, of a grid or of a file, in the terminal."""

import socket
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from pagetide.commands.run_page import listen_for_page, show_saved
from pagetide.commands.status import STATUS_FAILED, STATUS_OK
from pagetide.compare.results.records import Run
from pagetide.compare.results.store import DATABASE, Store
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.result import RunResult, Sample
from pagetide.terminal.ascii_fallback import fall_back_to_ascii
from pagetide.terminal.live_picture import chart_text
from pagetide.terminal.summary import problems, summarise
from pagetide.workers.database import ResultsError

_FILE_BYTES_MAX = 1 << 30


def show(prefix: str | None, folder: Path | None, web: str | None = None) -> int:
    """Show one run, or list all; an exit status.

    Args:
        prefix: the beginning of the run's key, or a file that `run --json` or `boot --json` wrote, whose name ends with
            .json; None lists the runs of a grid.
        folder: where the results are; None is this folder, or the newest `compare-*` in it.
        web: where to show a page of it, too, until Ctrl-C; for a run, or None.

    Raises:
        ConfigError: the page cannot be shown there, or there is no run for it.
        ResultsError: there are no results, or no such run, or more than one, or the file is no run's.
    """
    fall_back_to_ascii(sys.stdout)
    console = Console(highlight=False)
    if web is not None and prefix is None:
        raise ConfigError("--web shows one run: name it")
    page = None if web is None else listen_for_page(web)
    if prefix is not None and prefix.endswith(".json"):
        return _show_file(Path(prefix), console, page)
    with Store.open(folder or _newest_folder(), read_only=True) as store:
        if prefix is None:
            for run in store.runs():
                console.print(Text(f"{run.key}  {_what(run)}{'  failed' if run.failed else ''}"), soft_wrap=True)
            return STATUS_OK
        run = store.find(prefix)
        result = store.result(run)
    console.print(Text(f"{run.key}: {_what(run)}, {run.cell.machine}", style="bold"), soft_wrap=True)
    console.print(Text(run.cell.replay), soft_wrap=True)
    _draw(result, console)
    if any(value is not None for value in run.figures.values()):
        console.print(summarise(result))
    else:
        console.print(Text(run.outcome, style="bold red"), soft_wrap=True)
    _show_page(result, page)
    return STATUS_FAILED if run.failed else STATUS_OK


def _show_file(path: Path, console: Console, page: socket.socket | None) -> int:
    """Show a run that was saved."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX)
        result = msgspec.json.decode(data, type=RunResult)
        result.config.check()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, ConfigError) as error:
        raise ResultsError(f"{path} is no run as --json saves it: {error}") from error
    if len({len(getattr(result.samples, name)) for name in Sample._fields}) != 1:
        raise ResultsError(f"{path} is no run as --json saves it: its samples are not of one length")
    ran = [result.started, *(f"{name} {version}" for name, version in (result.versions or {}).items())]
    console.print(Text(f"{result.guest}: {_settings(result.config)}, {result.machine}", style="bold"), soft_wrap=True)
    if any(ran):
        console.print(Text(", ".join(filter(None, ran))), soft_wrap=True)
    _draw(result, console)
    console.print(summarise(result))
    _show_page(result, page)
    return STATUS_FAILED if problems(result) else STATUS_OK


def _show_page(result: RunResult, page: socket.socket | None) -> None:
    """Show it where that is wanted, until Ctrl-C."""
    if page is not None:
        show_saved(result, page)


def _draw(result: RunResult, console: Console) -> None:
    if result.samples.t_s:
        end_s = max(result.samples.t_s[-1], 1.0)
        console.print(chart_text(result.samples.rows(), result.config.ram_bytes, console.width, 0.0, end_s))


def _what(run: Run) -> str:
    """What was run, in a few words."""
    return _settings(run.cell.config)


def _settings(config: RunConfig) -> str:
    faults = f", {' '.join(config.faults)}" if config.faults else ""
    return f"{config.design} on {config.workload}{faults}, oom {config.oom}, order {config.order}, seed {config.seed}"


def _newest_folder() -> Path:
    if Path(DATABASE).is_file():
        return Path()
    found = sorted(Path().glob(f"compare-*/{DATABASE}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ResultsError(f"there is no {DATABASE} here, and none in a folder compare-*: say where with --in DIR")
    return found[-1].parent
