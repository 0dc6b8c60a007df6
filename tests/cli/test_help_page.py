"""Help pages at every width of a terminal."""

import subprocess
import sys
from itertools import pairwise

import pytest

from pagetide import cli
from pagetide.cli.help_page import broken

COMMANDS = ("", "run", "boot", "compare", "report", "show", "serve", "ctl", "calibrate", "conformance", "explore")
HEAVY = ("numba", "llvmlite", "numpy", "polars", "duckdb", "pyarrow", "msgspec", "jinja2", "dask", "distributed")
WIDTHS = (60, 80, 120, 200)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_wrapped_once_and_fills_its_lines(
    command: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is longer than the terminal, and none ends before the next word would have stopped fitting."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main([*command.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: pagetide {command}".rstrip())
    assert all(line == line.rstrip() and len(line) <= columns for line in lines)
    in_examples = False
    for line, after in pairwise(lines):
        in_examples = in_examples or line == "Examples:"
        goes_on = after.startswith("      ") or (
            line and after and not after.startswith(" ") and not line.startswith(" ")
        )
        if goes_on and not line.endswith(":") and not (in_examples and after.startswith("    ")):
            assert len(line) + 1 + len(after.split()[0]) > columns, line


def test_examples_can_be_pasted_however_narrow_the_terminal() -> None:
    """A command line that is too long goes on after a backslash, and quoted words stay whole."""
    lines = list(broken(" pagetide report results --json - | jq '.a b' --more words\n", 40))
    assert lines == ["    pagetide report results --json - | \\", "      jq '.a b' --more words"]


def test_no_two_empty_lines_follow_each_other() -> None:
    """Whatever the framework leaves between its parts."""
    assert list(broken("\n\nA sentence.\n\n   \n\n  --x: it\n", 60)) == ["A sentence.", "", "  --x: it"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_that_computes(command: str) -> None:
    """Whoever asks what there is does not wait for arrays, compiler, tables and readers that only a run needs."""
    script = (
        "import sys; from pagetide.cli import main; status = main(sys.argv[1:]);"
        f"print(status, *sorted(set(sys.modules) & {set(HEAVY)}), file=sys.stderr)"
    )
    asked = [sys.executable, "-c", script, *command.split(), "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0"]
    assert done.stdout.startswith(f"Usage: pagetide {command}".rstrip())
