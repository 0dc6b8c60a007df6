"""`pagetide tend`: which script it becomes, and that the one for Python is one file without anything of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.inside import tend_script


@pytest.mark.parametrize(
    ("arguments", "program", "last"),
    [
        (["tend", "--dry-run"], "/bin/sh", ["--least-order", "0"]),
        (["tend", "--cache", "10"], sys.executable, ["--cache", "10"]),
    ],
)
def test_it_becomes_the_script_that_can(
    arguments: list[str], program: str, last: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell's; only page cache takes the one for Python."""
    became: list[tuple[str, list[str]]] = []

    def execv(path: str, words: list[str]) -> int:
        became.append((path, words))
        return 0

    monkeypatch.setattr("os.execv", execv)
    assert cli.main(arguments) == 0
    ((path, words),) = became
    assert (path, words[0], words[-2:]) == (program, program, last)


def test_the_printed_script_needs_nothing_of_ours(tmp_path: Path) -> None:
    """Copied into a guest, without any package: it says what it can do."""
    script = tmp_path / "tend"
    script.write_text(tend_script("py"))
    assert "pagetide." not in script.read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), "--help"], capture_output=True, text=True, check=True
    )
    assert "--cache PERCENT" in done.stdout
    assert script.read_text().startswith("#!/usr/bin/env python3\n")
