"""All commands together, and what becomes of their errors."""

import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from pagetide.cli import checks, comparing, daemon, guests  # noqa: F401 - each adds its commands
from pagetide.cli.app import app
from pagetide.lab.run_command import STATUS_USAGE
from pagetide.machine.config import ConfigError


def run_command_line(argv: Sequence[str]) -> int:
    """Run a command; the exit status. Bad arguments are one sentence on standard error."""
    try:
        result = app(list(argv), exit_on_error=False, print_error=False)
    except (CycloptsError, ConfigError) as error:
        sentence = " ".join(str(error).split())
        print(f"pagetide: {sentence}", file=sys.stderr)
        return STATUS_USAGE
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0
