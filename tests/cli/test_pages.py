"""What `tools/write_pages` makes of the commands: manual pages, and completion that shells take."""

import subprocess
import sys
from pathlib import Path

import pytest

from pagetide.cli import commands  # noqa: F401 - adds them
from pagetide.cli.app import app
from tests.needed import need

TOOL = Path(__file__).parents[2] / "tools/write_pages"
COMMANDS = [name for name in app if not name.startswith("-")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which they are."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run([sys.executable, TOOL, folder], check=True)
    return folder


def completed(pages: Path, *words: str) -> set[str]:
    """What bash would offer for the last of these words."""
    script = f"""
        source {pages}/bash-completion/completions/pagetide
        COMP_WORDS=(pagetide "$@") COMP_CWORD=$#
        _pagetide
        echo "${{COMPREPLY[@]}}"
    """
    bash = ["bash", "--norc", "-c", script, "bash", *words]
    return set(subprocess.run(bash, check=True, capture_output=True, text=True).stdout.split())


def test_bash_completes_commands_and_options(pages: Path) -> None:
    """Every command, and what begins as the word does."""
    assert set(COMMANDS) <= completed(pages, "")
    assert completed(pages, "ser") == {"serve"}
    assert {"--metrics", "--metrics-any"} == completed(pages, "serve", "--met")


def test_every_command_has_a_page(pages: Path) -> None:
    """One each and one for all, with options and exit status as the help has them."""
    names = {path.name for path in (pages / "man/man1").iterdir()}
    assert names == {"pagetide.1", *(f"pagetide-{command}.1" for command in COMMANDS)}
    page = (pages / "man/man1/pagetide-serve.1").read_text()
    assert ".TP\n.B \\-\\-metrics\\-any\n" in page
    assert ".SH EXIT STATUS\n0 after SIGTERM" in page
    assert ".SH SETTINGS AND OUTPUT\n" in (pages / "man/man1/pagetide-run.1").read_text()


def test_groff_has_nothing_to_say(pages: Path) -> None:
    """No page warns of a macro, a character or an escape."""
    need("groff")
    found = [
        subprocess.run(["groff", "-man", "-ww", "-z", path], check=True, capture_output=True, text=True).stderr
        for path in sorted((pages / "man/man1").iterdir())
    ]
    assert "".join(found) == ""
