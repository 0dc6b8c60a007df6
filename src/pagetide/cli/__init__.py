"""The commands. Only parsing: nothing heavy is imported before the arguments are known to be good."""

import sys
from collections.abc import Sequence

from pagetide.commands.status import STATUS_INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    try:
        if argv is None:
            from pagetide.terminal.patience import be_patient
            from pagetide.terminal.standard_output import name_failures

            name_failures()
            if not {"--help", "-h"} & set(sys.argv):
                be_patient(next(iter(sys.argv[1:]), ""))
        from pagetide.cli.commands import run_command_line  # takes a while, in which Ctrl-C may come

        return run_command_line(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
