"""Help pages at every width of a terminal."""

import importlib
import inspect
import pkgutil
import re
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


@pytest.mark.parametrize("module", sorted(module.name for module in pkgutil.iter_modules(cli.__path__)))
def test_only_arguments_that_there_are_have_a_help(module: str) -> None:
    """What a command's docstring says of arguments is of its own ones, each once."""
    found = vars(importlib.import_module(f"pagetide.cli.{module}")) if module != "__main__" else {}
    for name, function in found.items():
        if inspect.isfunction(function) and "\nArgs:\n" in (text := inspect.getdoc(function) or ""):
            documented = re.findall(r"^    (\w+): ", text.partition("\nArgs:\n")[2], re.MULTILINE)
            assert len(set(documented)) == len(documented), name
            assert set(documented) <= set(inspect.signature(function).parameters), name


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
