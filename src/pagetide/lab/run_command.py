"""`pagetide run`: from settings to a machine, a view, a summary and an exit status."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from pagetide.machine.config import ConfigError, RunConfig
from pagetide.machine.live import LiveMachine
from pagetide.machine.observer import Observer
from pagetide.machine.result import RunResult
from pagetide.memory.available import total_bytes
from pagetide.memory.guest_ram import GuestRamError
from pagetide.units import format_size

STATUS_OK = 0
"""The run is complete and nothing was wrong."""

STATUS_FAILED = 1
"""Something was wrong: a stamp, a discard that the kernel contradicts, a process that died, no memory."""

STATUS_USAGE = 2
"""The arguments were wrong, and nothing was run."""

STATUS_INTERRUPTED = 130
"""Ctrl-C, as a shell says it; what was measured was shown."""


class Machine(Protocol):
    """What runs a guest and its host."""

    def run(self, observer: Observer) -> RunResult:
        """Run to the end, and say what was measured."""


def check_against_machine(config: RunConfig, json_path: str | None) -> None:
    """Find out before the run what this machine cannot do.

    Raises:
        ConfigError: the guest is larger than the machine, or the JSON cannot be written.
    """
    if config.ram_bytes > total_bytes():
        raise ConfigError(
            f"a guest of {format_size(config.ram_bytes)} is larger than this machine's {format_size(total_bytes())}"
        )
    if json_path not in {None, "-"} and not Path(str(json_path)).absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {Path(str(json_path)).absolute().parent} to write the JSON to")


def run(config: RunConfig, json_path: str | None, *, make_machine: Callable[[RunConfig], Machine] = LiveMachine) -> int:
    """Run once, show it, and say how it ended as an exit status.

    Args:
        config: the settings, checked.
        json_path: where to write what was measured: a file, `-` for standard output (the rest then goes to standard
            error), or None.
        make_machine: makes what runs it.

    Raises:
        ConfigError: this machine cannot do it; nothing was run.
    """
    check_against_machine(config, json_path)
    from rich.console import Console  # noqa: PLC0415 - bad arguments should be told before it is loaded

    from pagetide.lab.summary import problems, summarise  # noqa: PLC0415
    from pagetide.lab.views import LiveView, PlainView, chart_text  # noqa: PLC0415

    console = Console(stderr=json_path == "-", highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal
    try:
        with LiveView(console, config.ram_bytes) if live else PlainView(console) as view:
            result = make_machine(config).run(view)
    except (GuestRamError, OSError) as error:
        print(f"pagetide: {error}", file=sys.stderr)  # noqa: T201
        return STATUS_FAILED
    if not live and result.samples.t_s:
        end_s = max(result.samples.t_s[-1], 1.0)
        console.print(chart_text(result.samples.rows(), config.ram_bytes, console.width, 0.0, end_s))
    console.print(summarise(result))
    _write_json(result, json_path)
    for problem in problems(result):
        print(f"pagetide: {problem}", file=sys.stderr)  # noqa: T201
    if problems(result):
        return STATUS_FAILED
    return STATUS_INTERRUPTED if result.outcome == "interrupted" else STATUS_OK


def _write_json(result: RunResult, json_path: str | None) -> None:
    if json_path is None:
        return
    text = msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n"
    if json_path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        Path(json_path).write_text(text)
