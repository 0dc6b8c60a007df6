"""All commands together, and what becomes of their errors."""

import contextlib
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from pagetide.cli import (  # noqa: F401 - each adds its commands
    checks,
    comparing,
    daemon,
    guests,
    operating,
    planning,
    recording,
)
from pagetide.cli.app import app
from pagetide.cli.help_page import HelpPage, terminal_columns
from pagetide.commands.status import STATUS_FAILED, STATUS_USAGE
from pagetide.machine.config_error import ConfigError
from pagetide.terminal.standard_output import give_up_output


def run_command_line(argv: Sequence[str]) -> int:
    """Run a command; the exit status. What goes wrong is one sentence on standard error."""
    try:
        return _run(list(argv))
    except BrokenPipeError:  # whoever read our output has seen enough
        return STATUS_FAILED
    except OSError as error:
        _tell(error)
        return STATUS_FAILED
    finally:
        give_up_output()


def _run(argv: list[str]) -> int:
    page = HelpPage()
    try:
        result = app(argv, exit_on_error=False, print_error=False, console=page.console)
    except (CycloptsError, ConfigError) as error:
        _tell(error)
        return STATUS_USAGE
    if not page.is_empty:
        sys.stdout.write(page.text(terminal_columns()))
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _tell(error: Exception) -> None:
    """One line; to nobody where standard error is what failed."""
    reason = str(error)
    if isinstance(error, OSError) and reason.startswith("[Errno"):  # the system's own words
        reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or reason
    with contextlib.suppress(OSError):
        print(f"pagetide: {' '.join(reason.split())}", file=sys.stderr, flush=True)
