"""`pagetide run`: from settings to a machine, a view, a summary and an exit status."""

import contextlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from pagetide.commands.status import STATUS_FAILED, STATUS_INTERRUPTED, STATUS_OK
from pagetide.machine.config import RunConfig
from pagetide.machine.config_error import ConfigError
from pagetide.machine.live.machine import LiveMachine
from pagetide.machine.observer import Machine, Observer
from pagetide.machine.result import RunResult
from pagetide.machine.settings.fits import check_against_machine
from pagetide.machine.versions import now_utc, versions
from pagetide.machine.workloads import make_work
from pagetide.whole_file import TargetError, check_writable, write_whole
from pagetide.workload.stream import StreamError
from pagetide.workload.stream_file import save_stream


def check_target(path: Path, what: str, *, makes_folders: bool = False) -> None:
    """`check_writable`, for an option: long work must not end with figures that cannot be kept.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        check_writable(path, what, makes_folders=makes_folders)
    except TargetError as error:
        raise ConfigError(str(error)) from None


def _check_json_path(json_path: str | None) -> None:
    if json_path is not None and json_path != "-":
        check_target(Path(json_path), "the JSON")


def prepare_stream(config: RunConfig, save_path: Path | None) -> None:
    """Check the stream of a run that has one from a file or faults, and keep the one of a run that is to.

    Raises:
        ConfigError: it cannot be read, run or written.
    """
    try:
        if config.stream is not None or config.faults or save_path is not None:
            work = make_work(config)
            if save_path is not None:
                save_stream(work.whole(), save_path)
    except StreamError as error:
        raise ConfigError(str(error)) from error


def run(
    config: RunConfig,
    json_path: str | None,
    save_path: Path | None = None,
    *,
    web: str | None = None,
    make_machine: Callable[[RunConfig], Machine] = LiveMachine,
) -> int:
    """Run once, show it, and say how it ended as an exit status.

    Args:
        config: the settings, checked.
        json_path: where to write what was measured: a file, `-` for standard output (the rest then goes to standard
            error), or None.
        save_path: where to write the stream of operations that is run, or None.
        web: where to show a page of it while it runs, or None.
        make_machine: makes what runs it.

    Raises:
        ConfigError: this machine cannot do it; nothing was run.
    """
    check_against_machine(config)
    prepare_stream(config, save_path)
    return _run_and_show(config, json_path, make_machine, web=web)


def run_simulated(
    config: RunConfig,
    json_path: str | None,
    costs_path: Path | None,
    save_path: Path | None = None,
    *,
    web: str | None = None,
) -> int:
    """The same in virtual time.

    Args:
        config: the settings, checked.
        json_path: as for `run`.
        costs_path: what `pagetide calibrate` wrote; None is what it wrote last, or the built-in costs.
        save_path: as for `run`.
        web: as for `run`.

    Raises:
        ConfigError: there are no such costs, this cannot be simulated, there is not enough memory for it, or the JSON
            cannot be written; nothing was run.
    """
    from pagetide.machine.costs import read_costs
    from pagetide.machine.kernels.ahead import SIMULATED, compile_kernels
    from pagetide.machine.simulated.machine import SimulatedMachine
    from pagetide.machine.simulated.memory_need import ran_out

    try:
        prepare_stream(config, save_path)
        machine = SimulatedMachine(config, read_costs(costs_path))
    except MemoryError:
        raise ConfigError(ran_out(config)) from None
    compile_kernels(SIMULATED, lambda line: print(line, file=sys.stderr, flush=True))
    replay = f"the same settings and costs with --seed {config.seed} replay this run"
    return _run_and_show(config, json_path, lambda _: machine, replay, web=web)


def _run_and_show(
    config: RunConfig,
    json_path: str | None,
    make_machine: Callable[[RunConfig], Machine],
    replay: str = "",
    *,
    web: str | None = None,
) -> int:
    """Run and show; `replay` says how to see again what was wrong with the run itself."""
    _check_json_path(json_path)
    page = _listen_for_page(web)
    from rich.console import Console

    from pagetide.terminal.ascii_fallback import fall_back_to_ascii
    from pagetide.terminal.live_picture import chart_text
    from pagetide.terminal.standard_output import StandardOutputError
    from pagetide.terminal.summary import problems, summarise
    from pagetide.terminal.views import LiveView, PlainView

    stream = sys.stderr if json_path == "-" else sys.stdout
    fall_back_to_ascii(stream)
    console = Console(stderr=json_path == "-", highlight=False)
    live = console.is_interactive and stream.isatty()  # FORCE_COLOR makes rich call any file a terminal
    try:
        with (
            LiveView(console, config.ram_bytes) if live else PlainView(console) as view,
            _shown_besides(config, view, page) as observer,
        ):
            started = now_utc()
            result = make_machine(config).run(observer)
            result = msgspec.structs.replace(result, started=started, versions=versions())
    except (BrokenPipeError, StandardOutputError):
        raise
    except OSError as error:
        print(f"pagetide: {error}", file=sys.stderr)
        return STATUS_FAILED
    # First of all, since whoever reads the rest may hang up, as in `| head`.
    found = problems(result)
    unwritten = _write_file(result, json_path)
    if not live and result.samples.t_s:
        end_s = max(result.samples.t_s[-1], 1.0)
        console.print(chart_text(result.samples.rows(), config.ram_bytes, console.width, 0.0, end_s))
    console.print(summarise(result))
    if json_path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(_json(result))
        sys.stdout.flush()
    for problem in [*found, *unwritten, *([replay] if found and replay else [])]:
        print(f"pagetide: {problem}", file=sys.stderr)
    if found or unwritten:
        return STATUS_FAILED
    return STATUS_INTERRUPTED if result.outcome == "interrupted" else STATUS_OK


def _listen_for_page(web: str | None) -> socket.socket | None:
    """Where the page is asked for; None without one."""
    if web is None:
        return None
    from pagetide.commands.run_page import listen_for_page

    return listen_for_page(web)


def _shown_besides(
    config: RunConfig, view: Observer, page: socket.socket | None
) -> contextlib.AbstractContextManager[Observer]:
    """The view, or what tells a page besides."""
    if page is None:
        return contextlib.nullcontext(view)
    from pagetide.commands.run_page import RunPage

    return RunPage(page, config, view)


def _json(result: RunResult) -> bytes:
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def _write_file(result: RunResult, json_path: str | None) -> list[str]:
    """Write the JSON if it goes to a file; a sentence if that failed."""
    if json_path is None or json_path == "-":
        return []
    try:
        write_whole(Path(json_path), _json(result))
    except OSError as error:
        return [f"The JSON could not be written to {json_path}: {error.strerror}."]
    return []
